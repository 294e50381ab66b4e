"""Recipes as nested mappings, before they are typed: inheritance, sizes, ``--set`` with short names, ``--sweep``."""

from __future__ import annotations

import copy
import itertools
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import yaml

from edge_sdk.errors import RecipeError

Values = dict[str, Any]

# Sections that a size takes over from another recipe with ``conditions_of``: the audio, not the system.
_CONDITIONS = ("front_end", "heart_corpus", "sampling", "augment", "synthetic", "paper_augment", "fit")

_TASK_SECTIONS = {"classify": "joint", "segment": "segment", "adventitious": "adventitious"}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Values:
    """``base`` with ``changes`` laid over it, mapping by mapping; neither is altered."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def resolve(values: Values, size: str | None, read: Callable[[str], Values], seen: tuple[str, ...] = ()) -> Values:
    """Settings of one size, without ``like``, ``sizes`` and ``conditions_of``.

    ``like: NAME`` at the top: settings not given here are those of that recipe. ``sizes: {small: {...}}``: laid
    over the rest for that size. ``conditions_of: NAME`` within a size: front end, sampling, augmentation and fit of
    that recipe replace this one's before the size's own settings are laid over them.

    Parameters
    ----------
    values : dict
        As read from YAML.
    size : str, optional
        The recipe's own ``model.size`` where None.
    read : callable
        Returns the raw settings of another recipe by name.
    """
    values = inherited(values, read, seen)
    sizes = values.pop("sizes", None) or {}
    if not isinstance(sizes, dict) or not all(isinstance(item, dict) for item in sizes.values()):
        raise RecipeError(f"recipe {values.get('name', '?')!r}: sizes must map a size to settings")
    model = values.setdefault("model", {})
    if not isinstance(model, dict):
        raise RecipeError(f"recipe {values.get('name', '?')!r}: model must be a group of settings")
    if size is not None:
        model["size"] = size
    changes = dict(sizes.get(model.get("size", "base"), {}))
    source = changes.pop("conditions_of", None)
    if source is not None:
        other = resolve(read(source), None, read, (*seen, source))
        values = {key: value for key, value in values.items() if key not in _CONDITIONS}
        values |= {key: copy.deepcopy(other[key]) for key in _CONDITIONS if key in other}
    return merged(values, changes)


def inherited(values: Values, read: Callable[[str], Values], seen: tuple[str, ...] = ()) -> Values:
    """``values`` laid over the recipe that ``like`` names; another model does not inherit the options of the first."""
    values = copy.deepcopy(values)
    name = values.pop("like", None)
    if name is None:
        return values
    if name in seen:
        raise RecipeError(f"recipe {values.get('name', '?')!r}: 'like: {name}' is circular")
    base = inherited(read(name), read, (*seen, name))
    model = values.get("model")
    if isinstance(model, dict) and model.get("name", base["model"]["name"]) != base["model"]["name"]:
        for layer in (base, *base.get("sizes", {}).values()):  # options belong to one model
            layer.get("model", {}).pop("options", None)
    return merged(base, values)


def apply_override(values: Values, override: str, schema: type, check: Callable[[Values], object]) -> None:
    """Lay ``key=value`` over ``values``; the key is a path, or the end of one that no other setting shares.

    Parameters
    ----------
    values : dict
        Changed in place.
    override : str
        ``fit.epochs=10``, or short ``epochs=10``; the value is YAML.
    schema : type
        The recipe's struct, which lists the settings.
    check : callable
        Raises ``RecipeError`` where settings make no recipe; decides between paths that end alike.

    Raises
    ------
    RecipeError
        No ``=``, a path through a value, or a short name that fits several settings.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {override!r}: write key=value, for example --set fit.epochs=10")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override!r}: the value is not valid YAML") from error
    candidates = _candidates(key, values, schema)
    if len(candidates) > 1:
        candidates = [path for path in candidates if _fits(values, path, value, check)] or candidates
    if len(candidates) > 1:
        raise RecipeError(f"--set {override!r}: {key!r} could be {' or '.join(candidates)}; write the whole path")
    _assign(values, candidates[0] if candidates else key, value, override)


def expand_sweeps(sweeps: Iterable[str]) -> list[list[str]]:
    """``["sam.rho=0.01,0.02", "batch=8,16"]`` → the overrides of each run, all combinations in order."""
    axes = []
    for sweep in sweeps:
        key, equals, text = sweep.partition("=")
        try:
            choices = yaml.safe_load(f"[{text}]") if key and equals and text.strip() else None
        except yaml.YAMLError:
            choices = None
        if not choices:
            raise RecipeError(f"--sweep {sweep!r}: write key=value,value, for example --sweep sam.rho=0.01,0.02")
        axes.append([f"{key}={_flow(choice)}" for choice in choices])
    return [list(combination) for combination in itertools.product(*axes)]


def setting_paths(schema: type, values: Mapping[str, Any]) -> Iterator[str]:
    """Dotted paths of all settings of a recipe, sections that are switched off included."""
    yield from _paths(schema, "")
    options = values.get("model", {}).get("options") or {}
    yield from (f"model.options.{name}" for name in options)


def _paths(schema: Any, prefix: str) -> Iterator[str]:
    hints = typing.get_type_hints(schema, include_extras=True)
    for name, hint in ((name, hints[name]) for name in schema.__struct_fields__):
        path = f"{prefix}{name}"
        section = next((part for part in _parts(hint) if _is_section(part)), None)
        if name == "front_end":
            from edge_sdk.signal.spec import FrontEndSpec

            yield from (f"{path}.{name}" for name in FrontEndSpec.__struct_fields__)
        elif section is not None:
            yield path
            yield from _paths(section, f"{path}.")
        else:
            yield path


def _parts(hint: Any) -> Sequence[Any]:
    united = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return typing.get_args(hint) if united else (hint,)


def _is_section(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, msgspec.Struct)


def _candidates(key: str, values: Values, schema: type) -> list[str]:
    if key.split(".")[0] in typing.get_type_hints(schema):
        return [key]
    found = [path for path in dict.fromkeys(setting_paths(schema, values)) if path.endswith(f".{key}")]
    own = values.get("task", "classify")
    others = {section for task, section in _TASK_SECTIONS.items() if task != own}
    return [path for path in found if path.split(".")[0] not in others]


def _fits(values: Values, path: str, value: Any, check: Callable[[Values], object]) -> bool:
    trial = copy.deepcopy(values)
    try:
        _assign(trial, path, value, path)
        check(trial)
    except RecipeError:
        return False
    return True


def _assign(values: Values, path: str, value: Any, override: str) -> None:
    *parents, leaf = path.split(".")
    target = values
    for parent in parents:
        if target.get(parent) is None:
            target[parent] = {}
        target = target[parent]
        if not isinstance(target, dict):
            raise RecipeError(f"--set {override!r}: {parent!r} holds a value, not a group of settings")
    target[leaf] = value


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True)
    return text.removesuffix("\n").removesuffix("\n...")
