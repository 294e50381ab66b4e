"""The base of what ``bench peers`` times."""

from __future__ import annotations

from typing import Any


class PeerWorkload:
    """A unit of work: ``__init__`` prepares it, ``go`` does it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.about: dict[str, Any] = {}

    def go(self) -> object:
        """Do one unit of work."""
        raise NotImplementedError

    def profile(self) -> dict[str, float]:
        """CPU seconds by stage, for the workloads that can measure it."""
        return {}
