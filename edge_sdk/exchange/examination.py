"""An examination: recordings with what was found in them, from sessions, JSON lines, or audio screened on the fly."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.spans import (
    CycleSpan,
    GapSpan,
    QualitySpan,
    SoundSpan,
    Span,
    first_sample_s,
    from_first_sample,
    read_json_lines,
    spans_of,
)
from edge_sdk.files import is_file

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edge_sdk.sources.file import Channel

SESSION_ENDING = ".session.json"
_EVENTS_ENDING = ".events.jsonl"
_CORRECTIONS_ENDING = ".corrections.jsonl"  # of stetho serve
_LINES_SUFFIXES = (".jsonl", ".ndjson", ".json")

Lines: TypeAlias = Sequence[Mapping[str, Any]]
"""The JSON lines of one recording, its summary last."""


@dataclass(frozen=True, slots=True)
class BundleIdentity:
    """What classified a recording."""

    name: str
    version: str
    artefact: str | None = None  # format of the classifier
    sha256: str | None = None  # of bundle.json, which holds the hashes of all other files; None: not recorded
    artefact_sha256: str | None = None  # of the classifier

    @classmethod
    def of(cls, fields: Mapping[str, Any] | None) -> BundleIdentity | None:
        """Read ``Bundle.identity``, or what a session keeps of it; None where that has no name."""
        if not fields or not fields.get("name"):
            return None
        more = {name: fields.get(name) for name in ("artefact", "sha256", "artefact_sha256")}
        return cls(str(fields["name"]), str(fields.get("version")), **more)


@dataclass(frozen=True)
class ExaminedRecording:
    """One recording with everything that was found in it; times in seconds from its first sample."""

    source: str  # as screened: a path, or a source such as phantom:asthma
    sample_rate: int  # Hz
    duration_s: float  # dropped samples included
    audio: Path | None = None  # None: the audio is not at hand
    channel: Channel = 0  # of ``audio``
    cycles: tuple[CycleSpan, ...] = ()
    sounds: tuple[SoundSpan, ...] = ()
    gaps: tuple[GapSpan, ...] = ()
    quality: tuple[QualitySpan, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)  # the summary line; empty for annotations
    metadata: Mapping[str, Any] = field(default_factory=dict)  # of patient and device, as metadata.FIELDS
    device: Mapping[str, Any] = field(default_factory=dict)  # model, serial_number, firmware, where the link names them
    bundle: BundleIdentity | None = None
    sdk_version: str | None = None  # that recorded or screened it
    started: datetime | None = None  # of the recording; None: unknown
    alias: str | None = None  # name that stands for the source where that is not to be named

    @property
    def name(self) -> str:
        """Name for files: the alias, else that of the audio or the source, without folder and suffix."""
        if self.alias is not None:
            return self.alias
        stem = self.audio.stem if self.audio is not None else re.split(r"[\\/]", self.source)[-1]
        stem = re.sub(r"\.(wav|flac)$", "", stem, flags=re.IGNORECASE)
        return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "recording"

    @property
    def spans(self) -> tuple[Span, ...]:
        """Cycles, adventitious sounds and gaps in order of time."""
        spans: list[Span] = [*self.cycles, *self.sounds, *self.gaps]
        return tuple(sorted(spans, key=lambda span: (span.start_s, span.end_s)))

    @property
    def verdict(self) -> str | None:
        """``normal``, ``abnormal`` or ``uncertain``; None where the bundle gives no verdicts."""
        return self.summary.get("verdict")

    @property
    def verdict_reason(self) -> str | None:
        """Why the verdict is uncertain; None where it is not, or where the probability lies between both thresholds."""
        return self.summary.get("verdict_reason")

    @property
    def p_abnormal(self) -> float | None:
        """Calibrated probability that the recording is abnormal."""
        return self.summary.get("p_abnormal")

    @property
    def respiratory_rate_bpm(self) -> float | None:
        """Cycles per minute; None where no cycle was found."""
        return self.summary.get("respiratory_rate_bpm")

    @property
    def respiratory_rate_confident(self) -> bool | None:
        """Whether the rate can be relied on; None without a rate."""
        return self.summary.get("respiratory_rate_confident")

    @property
    def site(self) -> str | None:
        """Body site of the stethoscope; None where unknown."""
        return self.metadata.get("site") or None

    def samples(self) -> npt.NDArray[np.float32]:
        """Samples ``[n]`` in ±1 of the channel that was screened.

        Raises
        ------
        ExchangeError
            The audio is not at hand.
        AudioError
            It cannot be read.
        """
        import numpy as np

        from edge_sdk.signal.audio_file.opening import open_audio

        if self.audio is None:
            raise ExchangeError(f"the audio of {self.source} is not at hand; name its folder (--audio-dir DIR)")
        with open_audio(self.audio) as reader:
            frames = reader.read_all()  # [n, channels]
        return np.asarray(frames.mean(axis=1) if self.channel == "mix" else frames[:, self.channel], np.float32)


@dataclass(frozen=True)
class Examination:
    """Recordings of one patient in one visit."""

    recordings: tuple[ExaminedRecording, ...]
    notes: tuple[str, ...] = ()  # what was left out or is not known, one line each

    @cached_property
    def bundles(self) -> tuple[BundleIdentity, ...]:
        """The bundles that classified, each once."""
        return tuple(dict.fromkeys(r.bundle for r in self.recordings if r.bundle is not None))


@dataclass(frozen=True)
class Screener:
    """Screens audio on the fly; :mod:`edge_sdk.screening` is not imported here, its functions are passed in."""

    records: Callable[[Path, Mapping[str, Any]], Lines]  # of a file and its metadata; raises StethoError
    bundle: BundleIdentity | None
    sdk_version: str
    channel: Channel = 0


def load_examination(
    paths: Sequence[Path],
    *,
    screener: Callable[[], Screener] | None = None,
    audio: Path | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Examination:
    """Read sessions, JSON lines of ``screen`` and ``listen``, and audio, in the order given.

    Parameters
    ----------
    paths
        A folder with sessions of ``listen --record`` or one file of a session; JSON lines; an audio file, which is
        screened unless a session lies beside it.
    screener
        Makes what screens audio; called once, and only where it is needed.
    audio
        Folder with the audio of JSON lines whose paths do not exist here.
    metadata
        Of patient and device, of all recordings; wins over what a session kept.

    Raises
    ------
    ExchangeError
        A file or folder that is none of these, or is cut off.
    AudioError
        Audio that cannot be screened.
    """
    made: list[Screener] = []

    def screen(path: Path, about: Mapping[str, Any]) -> ExaminedRecording:
        if screener is None:
            raise ExchangeError(f"{path} is not screened yet; name a session or the JSON lines of 'stetho screen'")
        if not made:
            made.append(screener())
        return screened(path, made[0], about)

    given = dict(metadata or {})
    recordings: list[ExaminedRecording] = []
    notes: list[str] = []
    for path in paths:
        if path.is_dir():
            sessions = sorted(path.rglob("*" + SESSION_ENDING))
            if not sessions:
                raise ExchangeError(f"{path} holds no session of 'stetho listen --record'; name a folder that does")
            recordings += [_session(session, screen, given, notes) for session in sessions]
        elif (session := _session_of(path)) is not None:
            recordings.append(_session(session, screen, given, notes))
        elif path.suffix.lower() in _LINES_SUFFIXES:
            recordings += [replace(r, metadata=given) for r in _from_lines_file(path, audio, notes)]
        else:
            recordings.append(screen(path, given))
    if not recordings:
        raise ExchangeError("; ".join(["no recording to convert", *notes]))
    return Examination(tuple(recordings), tuple(notes))


def screened(path: Path, screener: Screener, metadata: Mapping[str, Any]) -> ExaminedRecording:
    """Screen one audio file."""
    return recording_of(
        screener.records(path, metadata),
        audio=path,
        channel=screener.channel,
        metadata=metadata,
        bundle=screener.bundle,
        sdk_version=screener.sdk_version,
    )


def recording_of(lines: Lines, **more: Any) -> ExaminedRecording:
    """Make a recording from its JSON lines, the summary last; ``more`` are fields of :class:`ExaminedRecording`.

    Raises
    ------
    ExchangeError
        A line lacks a field.
    """
    summary = lines[-1]
    try:
        cycles, sounds, gaps, quality = spans_of(lines, summary["duration_s"])
        return ExaminedRecording(
            source=summary["source"],
            sample_rate=summary["sample_rate"],
            duration_s=summary["duration_s"],
            cycles=cycles,
            sounds=sounds,
            gaps=gaps,
            quality=quality,
            summary={key: value for key, value in summary.items() if key not in ("type", "source")},
            **more,
        )
    except KeyError as error:
        raise ExchangeError(f"a line of {summary.get('source')} has no {error}; write the JSON lines again") from None


def _from_lines_file(path: Path, audio: Path | None, notes: list[str]) -> list[ExaminedRecording]:
    bundle: BundleIdentity | None = None
    waiting: dict[str, list[dict[str, Any]]] = {}
    recordings = []
    for record in read_json_lines(path):
        kind, source = record["type"], str(record.get("source"))
        if kind == "run":  # head of the file of ``screen --results``
            named = {"name": record.get("bundle"), "artefact_sha256": record.get("sha256")}
            bundle = BundleIdentity.of({**named, "version": record.get("version"), "artefact": record.get("artefact")})
        elif kind == "error":
            notes.append(f"{source} was left out: {record.get('message')}")
        elif "source" in record:
            waiting.setdefault(source, []).append(record)
            if kind == "summary":
                found = find_audio(source, (Path(), path.parent), audio)
                recordings.append(recording_of(waiting.pop(source), audio=found, bundle=bundle))
    if waiting:
        raise ExchangeError(f"{path} has no summary of {next(iter(waiting))}: it is cut off; write it again")
    if not recordings and not notes:
        raise ExchangeError(f"{path} holds no results of 'stetho screen' or 'stetho listen'")
    return recordings


def find_audio(source: str, beside: Iterable[Path], audio: Path | None) -> Path | None:
    """Find the audio file of a source: in the folder ``audio`` by its name, else by its path; None where absent."""
    name = re.split(r"[\\/]", source)[-1]
    if audio is not None:
        candidates = [audio / name, *sorted(path for path in audio.rglob("*") if path.name == name)]
    else:
        candidates = [Path(source), *(folder / source for folder in beside), *(folder / name for folder in beside)]
    return next((path for path in candidates if is_file(path)), None)


def _session_of(path: Path) -> Path | None:
    """The session file of any of its three files; None where there is none."""
    for ending in (SESSION_ENDING, _EVENTS_ENDING, ".flac"):
        if path.name.endswith(ending):
            session = path.with_name(path.name.removesuffix(ending) + SESSION_ENDING)
            return session if session.is_file() else None
    return None


def _session(
    path: Path,
    screen: Callable[[Path, Mapping[str, Any]], ExaminedRecording],
    metadata: Mapping[str, Any],
    notes: list[str],
) -> ExaminedRecording:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        source, sound, events = about["source"], path.with_name(about["sound"]), path.with_name(about["events"])
        started = datetime.fromisoformat(about["started"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExchangeError(f"{path} is no session of 'stetho listen --record' ({error})") from None
    metadata = {**about.get("metadata", {}), **metadata}
    device = about.get("device", {})
    if not about.get("complete"):  # it was killed: no summary, and the last line may be cut off
        notes.append(f"{path.name}: the session was cut off; its audio was screened again")
        again = screen(sound, metadata)
        return replace(again, source=source, started=started, device=device, channel=0)
    shift_s = first_sample_s(about)
    lines = [from_first_sample(line, shift_s) for line in read_json_lines(events) if line.get("source") == source]
    if not lines or lines[-1]["type"] != "summary":
        raise ExchangeError(f"{events} has no summary; the session is damaged")
    if path.with_name(path.name.removesuffix(SESSION_ENDING) + _CORRECTIONS_ENDING).is_file():
        notes.append(f"{path.name}: a reviewer's corrections are not applied; these are the results of the SDK")
    return recording_of(
        lines,
        audio=sound if is_file(sound) else None,
        metadata=metadata,
        device=device,
        bundle=BundleIdentity.of(about.get("bundle")),
        sdk_version=about.get("sdk_version"),
        started=started,
    )
