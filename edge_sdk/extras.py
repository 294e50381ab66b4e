"""Optional parts of the SDK: absent packages are named with the extra that brings them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from edge_sdk.errors import MissingDependencyError


def require_extra(extra: str, what: str, *modules: str) -> None:
    """Check that the packages of an extra are installed, without importing them.

    Parameters
    ----------
    extra
        Name in ``pip install 'stethoscope-edge-sdk[NAME]'``.
    what
        What needs them, for the message.
    modules
        Top-level modules.

    Raises
    ------
    MissingDependencyError
        At least one is absent.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"{what} needs {' and '.join(missing)}; install with: pip install 'stethoscope-edge-sdk[{extra}]'"
        )


def require_torch() -> None:
    """Check that the extra ``train`` is installed; errors as :func:`require_extra`."""
    require_extra("train", "training", "torch", "yaml")


def from_train_side(reference: str) -> Any:
    """Import ``module:name`` of the train side, which the device side never imports by itself.

    Raises
    ------
    MissingDependencyError
        The extra ``train`` is not installed.
    """
    require_torch()
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
