"""Label Studio: tasks with predictions to import; exports (JSON and JSON-MIN) to read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.annotations.texts import (
    Annotated,
    Written,
    chance_of,
    lost_alternatives,
    lost_quality,
    span_of,
    text_of,
    times,
    with_chance,
)
from edge_sdk.exchange.examination import ExaminedRecording
from edge_sdk.exchange.spans import Span

LABELLING_CONFIG = """<View>
  <Labels name="label" toName="audio">
    <Label value="normal"/><Label value="crackle"/><Label value="wheeze"/><Label value="both"/>
    <Label value="sound: crackle"/><Label value="sound: wheeze"/>
  </Labels>
  <Audio name="audio" value="$audio"/>
</View>
"""
"""Labelling interface of the project that the tasks go to."""


def write(recordings: Sequence[ExaminedRecording]) -> Written:
    """Write one task a recording, its spans as predictions."""
    tasks = [_task(recording) for recording in recordings]
    text = json.dumps(tasks, indent=1, ensure_ascii=False) + "\n"
    return Written(text, lost_alternatives(recordings) + lost_quality(recordings))


def _task(recording: ExaminedRecording) -> dict[str, Any]:
    bundle = recording.bundle
    result = [_region(span, number, recording.duration_s) for number, span in enumerate(recording.spans)]
    prediction = {
        "model_version": "annotation" if bundle is None else f"{bundle.name} {bundle.version}",
        "result": result,
    }
    audio = recording.source if recording.audio is None else recording.audio.name
    if recording.alias is not None:
        audio = recording.alias
    return {"data": {"audio": re.split(r"[\\/]", audio)[-1]}, "predictions": [prediction]}


def _region(span: Span, number: int, duration_s: float) -> dict[str, Any]:
    region: dict[str, Any] = {
        "id": f"span{number}",
        "from_name": "label",
        "to_name": "audio",
        "type": "labels",
        "original_length": duration_s,
        "value": {"start": span.start_s, "end": span.end_s, "channel": 0, "labels": [text_of(span)]},
    }
    score = chance_of(span)
    return region if score is None else {**region, "score": score}


def read(text: str) -> list[Annotated]:
    """Read tasks or an export; what a person annotated wins over predictions.

    Raises
    ------
    ExchangeError
        No list of tasks with audio.
    """
    try:
        tasks = json.loads(text)
    except ValueError as error:
        raise ExchangeError(f"no JSON of Label Studio ({error})") from None
    if isinstance(tasks, dict):
        tasks = [tasks]
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ExchangeError("no JSON of Label Studio: it holds no list of tasks")
    return [_annotated(task, number) for number, task in enumerate(tasks, 1)]


def _annotated(task: Mapping[str, Any], number: int) -> Annotated:
    data = task.get("data", task)  # JSON-MIN has the data in the task itself
    name = next((value for key, value in data.items() if key in ("audio", "url", "sound", "wav")), None)
    if not isinstance(name, str):
        raise ExchangeError(f"task {number} has no field 'audio'")
    spans = []
    for region in _regions(task):
        value = region.get("value", region)
        labels = value.get("labels") or [""]
        start_s, end_s = times(str(value.get("start")), str(value.get("end")), f"task {number}")
        span = span_of("+".join(labels), start_s, end_s)
        score = region.get("score")
        spans.append(with_chance(span, float(score) if isinstance(score, int | float) else None))
    return Annotated(tuple(spans), _file_name(name))


def _regions(task: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "data" not in task:
        yield from (region for key in ("label", "labels") for region in task.get(key) or [] if isinstance(region, dict))
        return
    done = [a for a in task.get("annotations") or task.get("completions") or [] if not a.get("was_cancelled")]
    for group in done[-1:] or (task.get("predictions") or [])[:1]:  # the newest annotation, else the first prediction
        yield from (region for region in group.get("result", []) if region.get("type", "labels") == "labels")


def _file_name(text: str) -> str:
    """Name of the file: without folder, and without the prefix that an upload adds."""
    name = re.split(r"[\\/]|%2F|\?d=", text)[-1]
    return re.sub(r"^[0-9a-f]{8}-", "", name)
