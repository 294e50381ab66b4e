"""Optional dependencies of commands: absent ones are named with the extra that brings them."""

from __future__ import annotations

from importlib.util import find_spec

from edge_sdk.errors import MissingDependencyError


def need_torch() -> None:
    """Raise ``MissingDependencyError`` where the train extra is not installed."""
    missing = [name for name in ("torch", "yaml") if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"training needs {' and '.join(missing)}; install with: pip install 'stethoscope-edge-sdk[train]'"
        )
