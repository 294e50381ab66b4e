"""A broker that is killed, restarted, stopped, absent or refuses the login never touches a live stream."""

from __future__ import annotations

import datetime
import ipaddress
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_sdk.events import AudioBlock, StreamStats
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.runtime.session import Session
from edge_sdk.sinks.jsonl import JsonlSink
from edge_sdk.sinks.mqtt import MqttSink
from edge_sdk.sinks.mqtt_address import read_broker
from edge_sdk.sinks.summary import Labels
from edge_sdk.sources.phantom import PhantomSource
from tests.sinks.conftest import Mosquitto, Watcher, until
from tests.sinks.test_mqtt import result

RATE = 4000
SECONDS = 24
LABELS = Labels(("normal", "crackle", "wheeze", "both"), "normal")
TOPIC = "stetho/bed"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    with PhantomSource("asthma", duration_s=SECONDS, sample_rate=RATE) as source:
        return np.concatenate([block.samples for block in source])


class LiveSource:
    """A live source, which drops what a slow consumer does not take; runs an action at given seconds of its audio."""

    name, sample_rate, live = "bed", RATE, True

    def __init__(self, samples: np.ndarray, actions: Mapping[int, Callable[[], None]], *, speed: float = 12.0) -> None:
        self._samples, self._actions, self._speed = samples, actions, speed

    def __iter__(self) -> Iterator[AudioBlock]:
        for first in range(0, len(self._samples), RATE // 4):
            if first % RATE == 0 and (action := self._actions.get(first // RATE)):
                action()
            time.sleep(0.25 / self._speed)
            yield AudioBlock(self._samples[first : first + RATE // 4], RATE, first, time.monotonic_ns())

    def close(self) -> None:
        pass


class Listening:
    """Plays through a session as ``stetho listen`` does."""

    def __init__(self, bundle: Bundle, samples: np.ndarray) -> None:
        self._bundle, self._samples = bundle, samples
        self.records: list[dict[str, Any]] = []
        self.stats = StreamStats()

    def run(self, sink: MqttSink | None, actions: Mapping[int, Callable[[], None]] | None = None) -> None:
        view = JsonlSink(lambda r: self.records.append({**r, "latency_ms": None}), LABELS, running=True)
        # A queue for all of it: that this machine is busy is not the question. A sink that waits stops the records,
        # and an action that waits for them fails.
        source = LiveSource(self._samples, actions or {})
        self.stats = Session(source, self._bundle, [*([sink] if sink else []), view], queue_s=3.0 * SECONDS).run()

    def wait_for(self, seconds: float) -> None:
        """Wait until the stream has reached a time."""
        until(lambda: any(r.get("start_s", 0) > seconds for r in self.records), f"the stream passes {seconds} s")


@pytest.fixture
def listening(bundle: Bundle, samples: np.ndarray) -> Listening:
    return Listening(bundle, samples)


@pytest.fixture(scope="module")
def undisturbed(bundle: Bundle, samples: np.ndarray) -> list[dict[str, Any]]:
    alone = Listening(bundle, samples)
    alone.run(None)
    assert alone.stats.samples_lost == 0
    assert sum(r["type"] == "cycle" for r in alone.records) >= 5
    return alone.records


class Notes:
    """What a person is shown about the broker."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    def has(self, text: str) -> bool:
        return any(text in line for line in self.lines)


def make_sink(url: str, notes: Notes, environment: Mapping[str, str] | None = None, waiting: int = 1000) -> MqttSink:
    return MqttSink(read_broker(url, environment or {}), LABELS, name="bed", notify=notes, waiting=waiting)


def check_stream(listening: Listening, undisturbed: list[dict[str, Any]]) -> None:
    stats = listening.stats
    assert listening.records == undisturbed
    assert (stats.samples_in, stats.samples_lost, stats.skipped) == (SECONDS * RATE, 0, 0)


@pytest.mark.requirement("OUT-2")
def test_a_broker_that_is_killed_and_comes_back(
    mosquitto: Mosquitto, listening: Listening, undisturbed: list[dict[str, Any]]
) -> None:
    notes = Notes()
    sink = make_sink(f"mqtt://127.0.0.1:{mosquitto.port}", notes)
    watching: list[Watcher] = []

    def connected() -> None:
        until(lambda: sink._publisher._connected, "the first connection")

    def restart() -> None:
        until(lambda: notes.has("closed the connection"), "the loss is noticed")
        listening.wait_for(10)
        mosquitto.start()  # without anything that was retained
        watching.append(Watcher(mosquitto.port))

    def back() -> None:
        until(lambda: bool(watching[0].of(f"{TOPIC}/availability")), "back online")

    listening.run(sink, {1: connected, 6: mosquitto.kill, 14: restart, 20: back})
    check_stream(listening, undisturbed)
    watcher = watching[0]
    until(lambda: watcher.of(f"{TOPIC}/availability") == ["online", "offline"], "online, then offline at the end")
    assert any(topic == "homeassistant/sensor/bed/verdict/config" for topic, _ in watcher.seen)
    assert notes.has("connected to 127.0.0.1") and "so far 0 messages dropped" in notes.lines[-1]
    # What happened without a broker was delivered later; the last record is the summary of the whole stream.
    late = [r for r in watcher.objects(f"{TOPIC}/events") if r["type"] == "cycle" and 7 < r["start_s"] < 12]
    assert late != []
    assert watcher.objects(f"{TOPIC}/events")[-1]["type"] == "summary"
    assert sink.dropped == 0
    watcher.close()


@pytest.mark.requirement("OUT-2")
def test_a_broker_that_stops_reading(
    mosquitto: Mosquitto, listening: Listening, undisturbed: list[dict[str, Any]]
) -> None:
    sink = make_sink(f"mqtt://127.0.0.1:{mosquitto.port}", Notes(), waiting=5)
    watcher = Watcher(mosquitto.port)

    def pause() -> None:
        until(lambda: watcher.of(f"{TOPIC}/availability") == ["online"], "online")
        mosquitto.send(signal.SIGSTOP)

    def go_on() -> None:
        listening.wait_for(18)
        mosquitto.send(signal.SIGCONT)

    listening.run(sink, {2: pause, 22: go_on})
    check_stream(listening, undisturbed)
    until(lambda: watcher.of(f"{TOPIC}/availability") == ["online", "offline"], "the end")
    assert sink.dropped > 0  # counted, and shown in the state
    assert watcher.objects(f"{TOPIC}/state")[-1]["dropped_messages"] > 0
    assert len(watcher.of(f"{TOPIC}/events")) + sink.dropped == len(listening.records)
    watcher.close()


def test_a_broker_that_never_reads_again_does_not_hold_the_end(
    mosquitto: Mosquitto, listening: Listening, undisturbed: list[dict[str, Any]]
) -> None:
    notes = Notes()
    sink = make_sink(f"mqtt://127.0.0.1:{mosquitto.port}", notes)
    listening.run(sink, {2: lambda: mosquitto.send(signal.SIGSTOP)})
    check_stream(listening, undisturbed)
    assert sink.dropped > 0 and notes.has("messages did not reach")


@pytest.mark.requirement("OUT-2")
def test_no_broker_at_all(mosquitto: Mosquitto, listening: Listening, undisturbed: list[dict[str, Any]]) -> None:
    mosquitto.kill()
    notes = Notes()
    listening.run(make_sink(f"mqtt://127.0.0.1:{mosquitto.port}", notes))
    check_stream(listening, undisturbed)
    assert len([line for line in notes.lines if "cannot be reached: Connection refused" in line]) == 1


def with_password(folder: Path) -> Mosquitto:
    passwords = folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "nurse", "right"], check=True, capture_output=True)
    return Mosquitto(folder, "allow_anonymous false", f"password_file {passwords}")


@pytest.mark.requirement("OUT-2")
def test_a_wrong_password(tmp_path: Path, listening: Listening, undisturbed: list[dict[str, Any]]) -> None:
    broker = with_password(tmp_path)
    broker.start()
    notes = Notes()
    url = f"mqtt://nurse@127.0.0.1:{broker.port}"
    try:
        sink = make_sink(url, notes, {"STETHO_MQTT_PASSWORD": "wrong"})
        listening.run(sink)
        check_stream(listening, undisturbed)
        (line,) = (line for line in notes.lines if "refuses this client" in line)
        assert "STETHO_MQTT_PASSWORD" in line and "wrong" not in line
        good = make_sink(url, notes, {"STETHO_MQTT_PASSWORD": "right"})
        good.open("mic", RATE)
        good.close(StreamStats())
        assert good.dropped == 0
    finally:
        broker.kill()


def test_a_killed_program_leaves_its_last_will(mosquitto: Mosquitto, watcher: Watcher) -> None:
    sink = make_sink(f"mqtt://127.0.0.1:{mosquitto.port}", Notes())
    sink.open("mic", RATE)
    until(lambda: watcher.of(f"{TOPIC}/availability") == ["online"], "online")
    sink._publisher._client.socket().close()  # type: ignore[union-attr]
    until(lambda: "offline" in watcher.of(f"{TOPIC}/availability"), "the last will")
    until(lambda: watcher.of(f"{TOPIC}/availability")[-1] == "online", "connected again")
    sink.close(StreamStats())


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test's broker")])
    now = datetime.datetime.now(datetime.timezone.utc)
    built = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    crt, pem = folder / "broker.crt", folder / "broker.key"
    crt.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    none = serialization.NoEncryption()
    pem.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none))
    return crt, pem


@pytest.mark.requirement("OUT-5")
def test_tls_is_verified(tmp_path: Path) -> None:
    crt, key = certificate(tmp_path)
    broker = Mosquitto(tmp_path, "allow_anonymous true", f"certfile {crt}", f"keyfile {key}")
    broker.start()
    url = f"mqtts://127.0.0.1:{broker.port}"
    try:
        trusting, doubting = Notes(), Notes()
        good = make_sink(url, trusting, {"STETHO_MQTT_CA_FILE": str(crt)})
        good.open("mic", RATE)
        good.close(StreamStats())
        assert (good.dropped, trusting.lines) == (0, [])
        bad = make_sink(url, doubting)
        bad.open("mic", RATE)
        until(lambda: doubting.has("certificate"), "an unknown authority is refused")
        bad.close(StreamStats())
        assert bad.dropped > 0
    finally:
        broker.kill()


def test_a_full_queue_drops_the_oldest_and_counts_them(mosquitto: Mosquitto) -> None:
    mosquitto.kill()
    sink = make_sink(f"mqtt://127.0.0.1:{mosquitto.port}", Notes(), waiting=3)
    sink.open("mic", RATE)
    for index in range(10):
        sink.event(result(index), None)
    assert sink.dropped == 7
    sink.close(StreamStats())
    assert sink.dropped >= 12  # with those that waited, the summary, the state and the last word
