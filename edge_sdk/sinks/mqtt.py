"""Events and the present state of a stream over MQTT, with the entities of Home Assistant's discovery."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

from edge_sdk.events import AudioBlock, CycleResult, Event, Gap, Health, QualityEvent, StreamStats, Verdict
from edge_sdk.json_lines import json_line
from edge_sdk.signal.breathing_rate import PRESENT_CYCLES, RateMeter
from edge_sdk.sinks.home_assistant import Device, discovery_messages
from edge_sdk.sinks.jsonl import JsonlSink
from edge_sdk.sinks.mqtt_address import Broker
from edge_sdk.sinks.mqtt_publisher import WAITING, Message, MqttPublisher
from edge_sdk.sinks.summary import Labels

_log = logging.getLogger(__name__)


class MqttSink:
    """Publishes every JSON line, and the present state retained, without ever making the stream wait.

    Topics below ``BROKER.topic/NODE``: ``availability`` (``online`` or ``offline``, retained, the client's last will),
    ``state`` (an object, retained), ``events`` (the JSON lines of ``stetho listen``). ``NODE`` is the name in letters,
    digits, ``-`` and ``_``. The name stands in place of the source, so that no path of a file leaves the machine.

    Parameters
    ----------
    broker
        From :func:`~edge_sdk.sinks.mqtt_address.read_broker`.
    labels
        Labels of the bundle.
    name
        Of the stethoscope, for people; unique on the broker.
    model
        Bundle and its version.
    notify
        Called in another thread with a line for a person about trouble with the broker.
    waiting
        Messages that may wait; the oldest are dropped and counted in the state.

    Raises
    ------
    MissingDependencyError
        paho-mqtt is not installed.
    """

    def __init__(
        self,
        broker: Broker,
        labels: Labels,
        *,
        name: str,
        model: str = "",
        notify: Callable[[str], None] = _log.warning,
        waiting: int = WAITING,
    ) -> None:
        node = node_of(name)
        self.topic = f"{broker.topic}/{node}"
        self._broker = broker
        self._name = name
        self._device = Device(node, name, model, f"{self.topic}/state", f"{self.topic}/availability")
        self._jsonl = JsonlSink(self._publish_line, labels, running=True)
        self._state = _State()
        self._publisher = MqttPublisher(
            broker,
            client=node,
            will=self._availability("offline"),
            greeting=self._greeting,
            notify=notify,
            waiting=waiting,
        )

    @property
    def dropped(self) -> int:
        """Messages dropped so far."""
        return self._publisher.dropped

    def open(self, source: str, sample_rate: int) -> None:
        """Begin to connect; an absent broker is tried again and again."""
        self._jsonl.open(self._name, sample_rate)
        self._publisher.start()

    def audio(self, block: AudioBlock) -> None:
        """Count the samples; audio itself is not published."""
        self._jsonl.audio(block)

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Queue the line of the event, and the state where it changed."""
        self._jsonl.event(event, latency_ms)
        if self._state.event(event):
            self._publish_state()

    def health(self, change: Health) -> None:
        """Queue the state with the health of the source, and the line about an engine that took over."""
        self._jsonl.health(change)
        self._state.update(connection=change.state)
        self._publish_state()

    def close(self, stats: StreamStats) -> None:
        """Publish the summary and ``offline``, for at most 3 s, and disconnect."""
        self._state.update(connection="ended", lost_samples=stats.samples_lost)
        self._jsonl.close(stats)
        self._publish_state()
        self._publisher.close(self._availability("offline"))

    def _publish_line(self, record: dict[str, Any]) -> None:
        self._publisher.put(Message(f"{self.topic}/events", json_line(record).rstrip("\n")))

    def _publish_state(self) -> None:
        self._publisher.put_latest(self._state_message())

    def _state_message(self) -> Message:
        state = {**self._state.values(), "dropped_messages": self._publisher.dropped}
        return Message(self._device.state_topic, json_line(state).rstrip("\n"), retain=True)

    def _availability(self, payload: str) -> Message:
        return Message(self._device.availability_topic, payload, retain=True)

    def _greeting(self) -> Sequence[Message]:
        prefix = self._broker.discovery
        entities = [] if prefix is None else discovery_messages(prefix, self._device)
        configs = [Message(topic, json_line(config).rstrip("\n"), retain=True) for topic, config in entities]
        return [*configs, self._state_message(), self._availability("online")]


class _State:
    """What the entities show; written in the stream's thread, read in the publisher's too."""

    def __init__(self) -> None:
        self._rate = RateMeter(keep=PRESENT_CYCLES)
        self._lock = threading.Lock()
        self._values: dict[str, Any] = {
            "respiratory_rate_bpm": None,
            "respiratory_rate_confident": None,
            "verdict": None,
            "p_abnormal": None,
            "verdict_reason": None,
            "quality": None,
            "connection": "healthy",
            "label": None,
            "cycles": 0,
            "lost_samples": 0,
            "updated": _now(),
        }

    def values(self) -> dict[str, Any]:
        """A copy."""
        with self._lock:
            return dict(self._values)

    def update(self, **changes: Any) -> bool:
        """Change values; return whether any differs from before."""
        with self._lock:
            if all(self._values[name] == value for name, value in changes.items()):
                return False
            self._values |= {**changes, "updated": _now()}
            return True

    def event(self, event: Event) -> bool:
        """Take an event; return whether the state is another one."""
        if isinstance(event, CycleResult):
            self._rate.result(event)
            return self.update(cycles=self._values["cycles"] + 1, label=event.label, **self._present_rate())
        if isinstance(event, Gap):
            self._rate.restart()
            return self.update(lost_samples=self._values["lost_samples"] + event.count)
        if isinstance(event, QualityEvent):
            return self.update(quality=event.state)
        if isinstance(event, Verdict):
            chance = None if event.p_abnormal is None else round(event.p_abnormal, 4)
            return self.update(verdict=event.verdict, p_abnormal=chance, verdict_reason=event.reason)
        return False

    def _present_rate(self) -> dict[str, Any]:
        rate = self._rate.breaths_per_minute
        return {
            "respiratory_rate_bpm": None if rate is None else round(rate, 2),
            "respiratory_rate_confident": self._rate.confident,
        }


def node_of(name: str) -> str:
    """A name as a part of topics and ids."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "stethoscope"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
