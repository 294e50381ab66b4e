"""``edge_sdk.screen``: recordings or samples in, labelled respiratory cycles out."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import AudioError, StreamError
from edge_sdk.screening.folders import find_recordings
from edge_sdk.screening.recordings import (
    ScreenedRecords,
    Screening,
    ScreenOptions,
    screen_many,
    screen_recording,
    screen_samples,
)

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.load import Bundle
    from edge_sdk.sources.file import Channel

_log = logging.getLogger(__name__)

StrPath: TypeAlias = "str | PathLike[str]"
Samples: TypeAlias = npt.NDArray[np.floating[Any]]


@overload
def screen(  # type: ignore[overload-overlap]  # a str is a sequence of str too; it means one file
    audio: StrPath | tuple[Samples, int],
    *,
    bundle: StrPath | Bundle = ...,
    artefact: str | None = ...,
    metadata: Mapping[str, Any] | None = ...,
    channel: Channel = ...,
    jobs: int = ...,
) -> Screening: ...


@overload
def screen(
    audio: Sequence[StrPath],
    *,
    bundle: StrPath | Bundle = ...,
    artefact: str | None = ...,
    metadata: Mapping[str, Any] | None = ...,
    channel: Channel = ...,
    jobs: int = ...,
) -> Iterator[Screening]: ...


def screen(
    audio: StrPath | Sequence[StrPath] | tuple[Samples, int],
    *,
    bundle: StrPath | Bundle = "default",
    artefact: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    channel: Channel = 0,
    jobs: int = 1,
) -> Screening | Iterator[Screening]:
    """Find and classify the respiratory cycles of a recording, of many recordings, or of samples in memory.

    Parameters
    ----------
    audio
        A file; ``(samples, rate_hz)`` with samples ``[n]`` or ``[n, channels]``, floats in ±1; or a list of files and
        folders (every recording below a folder, hidden and trash folders left out).
    bundle
        Folder of a bundle, ``"default"``, or a loaded one. With ``jobs`` > 1 each process loads it from its folder.
    artefact
        Format of the classifier, for example ``onnx-fp32``; absent: the bundle's default one.
    metadata
        Of patient and device: ``site``, ``device``, ``age_years``, ``sex``, ``bmi``, each optional.
    channel
        Number of the channel from 0, or ``"mix"`` for the mean of all.
    jobs
        Processes for a list.

    Returns
    -------
    Screening or Iterator[Screening]
        For a list an iterator in its order; a faulty file, and a folder that cannot be searched, has ``error`` set.

    Raises
    ------
    AudioError
        A recording or samples that cannot be used or are too short; a folder without recordings.
    BundleError
        The bundle is missing, corrupt or untrained.
    StreamError
        Unknown metadata.

    Examples
    --------
    >>> import edge_sdk
    >>> screening = edge_sdk.screen("recording.wav")  # doctest: +SKIP
    >>> screening.respiratory_rate_bpm, [cycle.label for cycle in screening.cycles]  # doctest: +SKIP
    """
    loaded = _loaded(bundle, artefact)
    if loaded is bundle:  # other processes must load the same artefact
        artefact = loaded.artefact.format
    metadata = _checked(loaded, metadata or {})
    options = ScreenOptions(str(loaded.path), artefact, channel, metadata)
    if isinstance(audio, tuple) and len(audio) == 2 and not isinstance(audio[0], str | PathLike):
        samples, rate_hz = audio
        if int(rate_hz) != rate_hz:
            raise AudioError(f"a sample rate of {rate_hz} Hz is no whole number; resample to one that is")
        return screen_samples(loaded, samples, int(rate_hz), channel=channel, metadata=metadata)
    if isinstance(audio, str | PathLike):
        path = Path(audio)
        if not path.is_dir():
            return screen_recording(loaded, path, options)
        audio = [path]
    found = find_recordings([Path(path) for path in audio])
    for note in found.notes:
        _log.warning("%s", note)
    missing = (Screening(str(folder), error=reason) for folder, reason in found.unreadable)
    return chain(screen_many(loaded, found.recordings, options, jobs=jobs), missing)


def screen_archive(
    bundle: Bundle,
    recordings: Sequence[Path],
    options: ScreenOptions,
    *,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    jobs: int | None = None,
    results: Path | None = None,
) -> Generator[ScreenedRecords, None, None]:
    """Screen many recordings and keep their results, so that a run that was stopped resumes.

    Parameters
    ----------
    bundle, options
        As :func:`~edge_sdk.screening.recordings.screen_many`.
    recordings
        Files.
    engine
        ``local``: processes of this machine; ``ray``: a cluster, whose results come in any order.
    address
        Of the Ray cluster; None starts one on this machine.
    jobs
        Processes; None: 1 on this machine, all cores on Ray.
    results
        JSON lines file that keeps every finished recording; those already in it, with the same content, come first and
        are not screened again.

    Raises
    ------
    ResultsError
        The file is of another run, in use, damaged by another program, or cannot be written.
    StreamError
        Unknown metadata.
    EngineError
        A worker was killed, or the cluster is not reachable.
    """
    options = replace(options, metadata=_checked(bundle, options.metadata))
    if results is None:
        yield from _screened(bundle, recordings, options, engine, address, jobs)
        return
    from edge_sdk.screening.results import KeptResults, run_identity

    with closing(KeptResults(results, run_identity(bundle, options))) as kept:
        rest = []
        for path in recordings:
            found = kept.find(path)
            if found is None:
                rest.append(path)
            else:
                yield found
        kept.forget_replaced()
        yield from kept.keeping(_screened(bundle, rest, options, engine, address, jobs))


def _screened(
    bundle: Bundle,
    recordings: Sequence[Path],
    options: ScreenOptions,
    engine: Literal["local", "ray"],
    address: str | None,
    jobs: int | None,
) -> Iterator[ScreenedRecords]:
    if not recordings:
        return iter(())
    if engine == "ray":
        from edge_sdk.screening.archive import screen_on_ray

        return screen_on_ray(recordings, options, address=address, workers=jobs)
    return screen_many(bundle, recordings, options, jobs=jobs or 1)


def _checked(bundle: Bundle, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata that the bundle reads; refused once, not for each recording."""
    from edge_sdk.metadata import checked_metadata

    try:
        return checked_metadata(metadata, bundle.classifier.metadata_schema)
    except ValueError as error:
        raise StreamError(str(error)) from error


def _loaded(bundle: StrPath | Bundle, artefact: str | None) -> Bundle:
    from edge_sdk.runtime.bundle.load import Bundle, load_bundle

    if not isinstance(bundle, Bundle):
        return load_bundle(bundle if isinstance(bundle, str) else Path(bundle), artefact=artefact)
    if artefact is not None and artefact != bundle.artefact.format:
        return load_bundle(bundle.path, artefact=artefact)
    return bundle
