"""Typed errors; every message states what is wrong and how to fix it."""

from __future__ import annotations

from collections.abc import Mapping


class StethoError(Exception):
    """Base of every error the SDK raises on purpose; the command line prints it as one line and exits with status 1."""


class AudioError(StethoError):
    """A recording that cannot be read or used: missing, empty, not audio, NaN samples, truncated, too short."""


class SourceError(StethoError):
    """A source specification that names nothing usable, or a device that cannot be opened."""


class SourceLostError(SourceError):
    """A source that died while it was delivering samples (unplugged device, stopped callback)."""


class DeviceChangedError(SourceError):
    """Another device took the place of the one that a source was listening to: the context of the patient ends.

    The source stays open. After its ``new_session()`` it can be iterated again, with samples counted from 0 at the
    rate of the new device; without it, the same time line goes on.

    Parameters
    ----------
    message
        One line for people.
    reason
        In what the devices differ.
    previous, device
        ``serial_number``, ``model`` and ``site`` of the old and of the new device; None where unknown.
    at
        Sample of the source, on the old time line, at which the new device begins.
    sample_rate
        Hz, of the new device.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        previous: Mapping[str, str | None],
        device: Mapping[str, str | None],
        at: int,
        sample_rate: int,
    ) -> None:
        super().__init__(message)
        self.reason, self.previous, self.device = reason, previous, device
        self.at, self.sample_rate = at, sample_rate


class StreamError(StethoError):
    """A stream used against its contract: rate changed, time ran backwards, audio after ``finish``."""


class BundleError(StethoError):
    """A bundle that is missing, incomplete, corrupt, newer than this SDK, or fails its golden vector."""


class EngineError(StethoError):
    """An inference engine that cannot load or run an artefact on this machine."""


class CorpusError(StethoError):
    """A corpus folder whose layout, counts or annotations are not what its publisher ships."""


class RecipeError(StethoError):
    """A training recipe with unknown keys, values out of range, or a model that does not exist."""


class CheckpointError(StethoError):
    """A checkpoint that is corrupt, of another model, or whose tensors do not match."""


class TrainingError(StethoError):
    """A training run that cannot continue: a loss that is not finite, too little memory."""


class ExportError(StethoError):
    """A model that cannot be exported, quantised, compiled or verified as asked."""


class MissingDependencyError(StethoError):
    """An optional package is absent; the message names the extra that brings it."""


class ResultsError(StethoError):
    """A file of results that belongs to another run or cannot be written."""


class StorageError(StethoError):
    """A folder of the SDK's own (cache, state, temporary files) that cannot be found or written."""


class ExchangeError(StethoError):
    """A record or annotation that cannot be read, or a format that cannot hold what it should."""


class AuditError(StethoError):
    """An audit log that cannot be written or read, or whose end was changed."""


def describe(error: BaseException) -> str:
    """Describe any exception in one line for a person; an unexpected one keeps the name of its class."""
    if isinstance(error, StethoError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        if "usable temporary directory" in error.strerror:
            return "no folder for temporary files can be written; set TMPDIR to one"
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return "out of memory"
    detail = str(error)
    return f"unexpected {type(error).__name__}{': ' + detail if detail else ''} (--debug shows where)"
