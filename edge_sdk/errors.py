"""Typed errors; every message states what is wrong and how to fix it."""

from __future__ import annotations


class StethoError(Exception):
    """Base of every error the SDK raises on purpose; the command line prints it as one line and exits with status 1."""


class AudioError(StethoError):
    """A recording that cannot be read or used: missing, empty, not audio, NaN samples, truncated, too short."""


class SourceError(StethoError):
    """A source specification that names nothing usable, or a device that cannot be opened."""


class SourceLostError(SourceError):
    """A source that died while it was delivering samples (unplugged device, stopped callback)."""


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
