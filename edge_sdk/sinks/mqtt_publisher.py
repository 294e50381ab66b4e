"""Publishes to an MQTT broker from a thread of its own: the caller never waits, whatever the broker does."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_sdk.extras import require_extra
from edge_sdk.sinks.mqtt_address import Broker

if TYPE_CHECKING:
    from paho.mqtt.client import Client
    from paho.mqtt.reasoncodes import ReasonCode

_log = logging.getLogger(__name__)

WAITING = 1000
"""Messages that may wait for the broker; the oldest are dropped and counted."""

_UNCONFIRMED = 20  # messages on their way; a broker that reads slowly holds no more of ours in memory
_KEEPALIVE_S = 15
_CONNECT_S = 5.0
_LONGEST_PAUSE_S = 30
_CLOSE_S = 3.0


@dataclass(frozen=True, slots=True)
class Message:
    """One message, delivered at least once."""

    topic: str
    payload: str
    retain: bool = False


class MqttPublisher:
    """Holds a connection to a broker and publishes what is put into its queue.

    A lost connection is opened again after a pause that grows up to 30 s; meanwhile messages wait in the queue, the
    oldest ones are dropped when it is full.

    Parameters
    ----------
    broker
        Address and login.
    client
        Begins the client's id; unique among the clients of the broker together with this process.
    will
        Published by the broker when this program dies or its network fails.
    greeting
        Called in another thread after every connection, and when Home Assistant has started; what it returns is
        published before anything else.
    notify
        Called in another thread with a line for a person: no connection and why, connected again.

    Raises
    ------
    MissingDependencyError
        paho-mqtt is not installed.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        client: str,
        will: Message,
        greeting: Callable[[], Sequence[Message]],
        notify: Callable[[str], None] = _log.warning,
        waiting: int = WAITING,
    ) -> None:
        require_extra("mqtt", "publishing to an MQTT broker", "paho")
        self.dropped = 0  # messages
        self._broker = broker
        self._greeting = greeting
        self._notify = notify
        self._waiting = waiting
        self._queue: deque[Message] = deque()
        self._latest: dict[str, Message] = {}  # topic → only the newest matters
        self._greet = self._connected = self._ended = False
        self._attempted = False  # a first connection was made or has failed
        self._finished = threading.Event()
        self._trouble: str | None = None  # last one that was reported
        self._unconfirmed = 0
        self._changed = threading.Condition()
        self._client = self._make_client(client, will)
        self._thread = threading.Thread(target=self._run, name="stetho-mqtt", daemon=True)

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    def put(self, message: Message) -> None:
        """Queue a message; drops the oldest one where too many wait."""
        with self._changed:
            if len(self._queue) >= self._waiting:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(message)
            self._changed.notify_all()

    def put_latest(self, message: Message) -> None:
        """Queue a message that replaces one of its topic that still waits."""
        with self._changed:
            self._latest[message.topic] = message
            self._changed.notify_all()

    def close(self, last: Message) -> None:
        """Publish what waits and then ``last``, for at most 3 s and only while connected; then disconnect."""
        if self._thread.ident is None:
            return
        with self._changed:
            self._ended = True
            self._queue.append(last)
            self._changed.notify_all()
        self._finished.wait(_CLOSE_S + 0.5)
        with self._changed:
            left = len(self._queue) + len(self._latest) + self._unconfirmed
            self.dropped += left
        if left:
            self._notify(f"MQTT: {left} messages did not reach {self._broker.address} before the end")

    # -- the thread of the queue ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        broker = self._broker
        self._client.connect_async(broker.host, broker.port, keepalive=_KEEPALIVE_S)
        self._client.loop_start()
        deadline: float | None = None
        while True:
            with self._changed:
                if self._ended and deadline is None:
                    deadline = time.monotonic() + _CLOSE_S
                absent = self._attempted and not self._connected
                over = deadline is not None and (absent or time.monotonic() > deadline)
                done = self._ended and not (self._greet or self._queue or self._latest or self._unconfirmed)
                if over or done:
                    break
                messages = self._next()
                if not messages:
                    self._changed.wait(0.1 if self._ended else None)
                    continue
                self._unconfirmed += len(messages)
            for message in messages:
                self._client.publish(message.topic, message.payload, qos=1, retain=message.retain)
        if absent:  # the client may be in the middle of an attempt, and there is nothing to say goodbye to
            self._finished.set()
        self._client.disconnect()
        self._client.loop_stop()
        self._finished.set()

    def _next(self) -> Sequence[Message]:
        if not self._connected or self._unconfirmed >= _UNCONFIRMED:
            return ()
        if self._greet:
            self._greet = False
            return self._greeting()
        if self._latest:
            return [self._latest.pop(next(iter(self._latest)))]
        return [self._queue.popleft()] if self._queue else ()

    # -- callbacks, in the client's thread -----------------------------------------------------------------------------

    def _make_client(self, client: str, will: Message) -> Client:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        made = Client(CallbackAPIVersion.VERSION2, client_id=f"{client}-{os.getpid()}-{time.time_ns() % 10**6:06d}")
        made.connect_timeout = _CONNECT_S
        made.reconnect_delay_set(1, _LONGEST_PAUSE_S)
        made.max_inflight_messages_set(_UNCONFIRMED)
        made.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        if self._broker.tls is not None:
            made.tls_set_context(self._broker.tls)
        if self._broker.user is not None:
            made.username_pw_set(self._broker.user, self._broker.password)
        made.on_connect = self._on_connect
        made.on_connect_fail = self._on_connect_fail
        made.on_disconnect = self._on_disconnect
        made.on_publish = self._on_publish
        made.on_message = self._on_message
        return made

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            self._attempt_failed()
            hint = "; check user and password (STETHO_MQTT_USER, STETHO_MQTT_PASSWORD)"
            login = "auth" in str(reason).lower() or "password" in str(reason).lower()
            self._report(f"refuses this client: {str(reason).lower()}{hint if login else ''}")
            return
        if self._broker.discovery is not None:
            client.subscribe(f"{self._broker.discovery}/status", qos=1)
        with self._changed:
            self._connected = self._attempted = self._greet = True
            self._changed.notify_all()
        self._report(None)

    def _on_connect_fail(self, _client: Client, _data: Any) -> None:
        error = sys.exc_info()[1]  # called while it is being handled
        self._attempt_failed()
        self._report(f"cannot be reached: {getattr(error, 'strerror', None) or error or 'no reason given'}")

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        with self._changed:
            was, self._connected = self._connected, False
            ended = self._ended
            self._changed.notify_all()
        if was and not ended:
            self._report(f"closed the connection ({str(reason).lower()})")

    def _on_publish(self, *_: Any) -> None:
        with self._changed:
            self._unconfirmed = max(0, self._unconfirmed - 1)
            self._changed.notify_all()

    def _on_message(self, _client: Client, _data: Any, message: Any) -> None:
        if message.payload == b"online":  # Home Assistant has started and knows no entity
            with self._changed:
                self._greet = True
                self._changed.notify_all()

    def _attempt_failed(self) -> None:
        with self._changed:
            self._attempted = True
            self._changed.notify_all()

    def _report(self, trouble: str | None) -> None:
        """Pass on a new trouble, and the end of one; never the same twice in a row."""
        before, self._trouble = self._trouble, trouble
        if trouble == before:
            return
        if trouble is not None:
            self._notify(f"MQTT: {self._broker.address} {trouble}; trying again, the stream goes on")
        else:
            self._notify(f"MQTT: connected to {self._broker.address}; so far {self.dropped} messages dropped")
