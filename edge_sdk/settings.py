"""Base of the settings in bundles, recipes and checkpoints: frozen, without unknown keys, every value in its bounds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar, get_args, get_origin

import msgspec

S = TypeVar("S", bound="Settings")

Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
NonNegative: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of settings whose fields state type, bounds (``msgspec.Meta``) and default.

    Values are checked and converted (an int where a float belongs, a list where a tuple belongs) in the constructor
    too, not only when they come from a file. Subclasses state rules across fields in ``_problem``.

    Raises
    ------
    ValueError
        A value has the wrong type or is out of bounds; the message begins with ``title`` and names the field.
    """

    title: ClassVar[str] = "settings"

    def __post_init__(self) -> None:
        for name, kind in _types(type(self)):
            value = getattr(self, name)
            try:
                converted = msgspec.convert(value, kind)
            except msgspec.ValidationError as error:
                reason = f"{value!r} is not one of {get_args(kind)}" if get_origin(kind) is Literal else str(error)
                raise ValueError(f"{self.title}: {name}: {reason}") from error
            msgspec.structs.force_setattr(self, name, converted)
        if problem := self._problem():
            raise ValueError(f"{self.title}: {problem}")

    def _problem(self) -> str | None:
        """What is wrong between fields; ``None`` where nothing is."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins in the order of the fields, for JSON, YAML and checkpoints."""
        return {name: _plain(getattr(self, name)) for name in self.__struct_fields__}

    @classmethod
    def from_dict(cls: type[S], values: Mapping[str, Any]) -> S:
        """Read what :meth:`to_dict` wrote; a key that is absent gets its default.

        Raises
        ------
        ValueError
            An unknown key, a wrong type or a value out of bounds.
        """
        unknown = sorted(set(values) - set(cls.__struct_fields__))
        if unknown:
            raise ValueError(f"{cls.title}: unknown keys {unknown}; this SDK may be older than the file")
        return cls(**values)


def _plain(value: Any) -> Any:
    """Lists for tuples, at any depth."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


@lru_cache(maxsize=64)
def _types(kind: type[Settings]) -> list[tuple[str, Any]]:
    return [(field.name, field.type) for field in msgspec.structs.fields(kind)]
