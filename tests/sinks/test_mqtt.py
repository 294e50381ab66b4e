"""Promises of MQTT: a real broker gets every line, the present state, and entities that Home Assistant can show."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import jinja2
import pytest

from edge_sdk.errors import StethoError
from edge_sdk.events import BreathCycle, CycleResult, Gap, Health, QualityEvent, StreamStats, Verdict
from edge_sdk.sinks.mqtt import MqttSink, node_of
from edge_sdk.sinks.mqtt_address import Broker, read_broker
from edge_sdk.sinks.summary import Labels
from tests.sinks.conftest import Mosquitto, Watcher, until

RATE = 4000
LABELS = Labels(("normal", "crackle", "wheeze", "both"), "normal")
TOPIC = "stetho/Bed-7"


def result(index: int, label: str | None = "normal", *, every_s: float = 3.0) -> CycleResult:
    onset = round(index * every_s * RATE)
    cycle = BreathCycle(index, onset, onset + 2 * RATE, RATE, True, onset + 2 * RATE, 0.9)
    return CycleResult(cycle, label, {"normal": 0.9} if label else {}, "ok" if label else "noisy")


def make_sink(broker: Mosquitto, **options: object) -> MqttSink:
    url = f"mqtt://127.0.0.1:{broker.port}"
    sink = MqttSink(read_broker(url, {}), LABELS, name="Bed 7", model="compact 0.5.0", **options)  # type: ignore[arg-type]
    sink.open("/patients/Jane Doe.wav", RATE)
    return sink


def shown(config: dict[str, str], state: dict[str, object]) -> str:
    """What Home Assistant shows: its templates are Jinja2."""
    return jinja2.Template(config["value_template"]).render(value_json=state)


def test_lines_state_and_availability_reach_the_broker(mosquitto: Mosquitto, watcher: Watcher) -> None:
    sink = make_sink(mosquitto)
    until(lambda: watcher.of(f"{TOPIC}/availability") == ["online"], "online")
    sink.event(QualityEvent(0, RATE, "ok", -30.0), None)
    for index in range(5):
        sink.event(result(index), 180.0)
    sink.event(Gap(16 * RATE, 400, RATE), None)
    sink.event(Verdict(16 * RATE, RATE, "abnormal", 0.91234, None, 16.0, 5, False), None)
    sink.health(Health("stalled", "no audio", 0))
    until(lambda: watcher.objects(f"{TOPIC}/state")[-1]["connection"] == "stalled", "the newest state")
    state = watcher.objects(f"{TOPIC}/state")[-1]
    expected = {
        "respiratory_rate_bpm": 20.0, "respiratory_rate_confident": True, "verdict": "abnormal", "p_abnormal": 0.9123,
        "verdict_reason": None, "quality": "ok", "connection": "stalled", "label": "normal", "cycles": 5,
        "lost_samples": 400, "dropped_messages": 0,
    }  # fmt: skip
    assert {name: state[name] for name in expected} == expected
    sink.close(StreamStats(samples_lost=400))
    until(lambda: watcher.of(f"{TOPIC}/availability") == ["online", "offline"], "offline")
    types = [record["type"] for record in watcher.objects(f"{TOPIC}/events")]
    assert types == ["quality", *["cycle"] * 5, "gap", "verdict", "summary"]
    assert {record["source"] for record in watcher.objects(f"{TOPIC}/events")} == {"Bed 7"}  # never a path
    assert not any("Jane" in payload for _, payload in watcher.seen)
    assert sink.dropped == 0

    late = Watcher(mosquitto.port)  # state and configuration are retained, events are not
    until(lambda: len(late.of(f"{TOPIC}/state")) == 1, "the retained state")
    assert late.objects(f"{TOPIC}/state")[0]["connection"] == "ended"
    assert late.of(f"{TOPIC}/availability") == ["offline"]
    assert late.of(f"{TOPIC}/events") == []
    late.close()


@pytest.mark.requirement("RES-4")
def test_entities_show_the_state(mosquitto: Mosquitto, watcher: Watcher) -> None:
    sink = make_sink(mosquitto)
    until(lambda: watcher.of(f"{TOPIC}/availability") == ["online"], "online")
    configs = {topic: json.loads(payload) for topic, payload in watcher.seen if topic.startswith("homeassistant/")}
    keys = {topic.removeprefix("homeassistant/").removesuffix("/config"): c for topic, c in configs.items()}
    assert set(keys) == {
        "sensor/Bed-7/respiratory_rate", "sensor/Bed-7/verdict", "sensor/Bed-7/quality",
        "binary_sensor/Bed-7/connection", "sensor/Bed-7/lost_samples",
    }  # fmt: skip
    assert len({config["unique_id"] for config in configs.values()}) == len(configs)
    for config in configs.values():
        assert config["state_topic"] == f"{TOPIC}/state"
        assert config["availability_topic"] == f"{TOPIC}/availability"
        assert config["device"]["identifiers"] == ["Bed-7"]
    state = {"respiratory_rate_bpm": 20.0, "respiratory_rate_confident": True, "verdict": "uncertain",
             "quality": "noisy", "connection": "healthy", "lost_samples": 3}  # fmt: skip
    assert shown(keys["sensor/Bed-7/respiratory_rate"], state) == "20.0"
    assert shown(keys["sensor/Bed-7/respiratory_rate"], {**state, "respiratory_rate_confident": False}) == "None"
    assert shown(keys["sensor/Bed-7/verdict"], state) in keys["sensor/Bed-7/verdict"]["options"]
    assert shown(keys["sensor/Bed-7/quality"], state) in keys["sensor/Bed-7/quality"]["options"]
    assert shown(keys["binary_sensor/Bed-7/connection"], state) == "ON"
    assert shown(keys["binary_sensor/Bed-7/connection"], {**state, "connection": "recovering"}) == "OFF"

    before = len(watcher.seen)
    watcher.publish("homeassistant/status", "online")  # it was started again and has forgotten every entity
    until(lambda: {t for t, _ in watcher.seen[before:]} >= set(configs), "the configuration once more")
    sink.close(StreamStats())


def test_discovery_can_be_off(mosquitto: Mosquitto, watcher: Watcher) -> None:
    broker = read_broker(f"mqtt://127.0.0.1:{mosquitto.port}/ward/3/?discovery=off", {})
    sink = MqttSink(broker, LABELS, name="Bed 7")
    sink.open("mic", RATE)
    sink.close(StreamStats())  # at once: what waits is still delivered
    until(lambda: watcher.of("ward/3/Bed-7/availability") == ["online", "offline"], "a short life")
    assert [r["type"] for r in watcher.objects("ward/3/Bed-7/events")] == ["summary"]
    assert not any(topic.startswith("homeassistant") for topic, _ in watcher.seen)


def test_urls() -> None:
    assert read_broker("mqtt://host", {}) == Broker("host", 1883)
    given = read_broker("mqtts://nurse@[::1]:18883/a/b?discovery=ha", {"STETHO_MQTT_PASSWORD": "p w"})
    assert (given.host, given.port, given.topic, given.discovery) == ("::1", 18883, "a/b", "ha")
    assert (given.user, given.password, given.address) == ("nurse", "p w", "[::1]:18883")
    assert isinstance(given.tls, ssl.SSLContext) and given.tls.check_hostname
    assert "p w" not in repr(given)
    assert node_of("Bett 7 / Süd") == "Bett-7-S-d"
    assert node_of("…") == "stethoscope"


def test_the_password_is_read_from_the_file_that_is_named(tmp_path: Path) -> None:
    secret, other = tmp_path / "secret", tmp_path / "other"
    secret.write_text("from file\n")
    other.write_text("from option")
    environment = {"STETHO_MQTT_USER": "nurse", "STETHO_MQTT_PASSWORD_FILE": str(secret)}
    assert read_broker("mqtt://host", environment).password == "from file"
    assert read_broker("mqtt://host", environment, password_file=other).password == "from option"


@pytest.mark.parametrize(
    ("url", "environment", "message"),
    [
        ("http://host", {}, "is not the URL of a broker; write mqtt"),
        ("host", {}, "is not the URL of a broker"),
        ("mqtt://", {}, "names no host"),
        ("mqtt://host:99999", {}, "names no host, or a port"),
        ("mqtt://a..b", {}, "names no host"),
        ("mqtt://host/a/+/b", {}, "wildcard"),
        ("mqtt://host/%23", {}, "wildcard"),
        ("mqtt://host?qos=2", {}, "unknown option 'qos'"),
        ("mqtt://nurse:secret@host", {}, "can be read by every user"),
        ("http://nurse:secret@host", {}, "nurse:…@host"),
        ("mqtt://host", {"STETHO_MQTT_PASSWORD": "x"}, "needs a user"),
        ("mqtt://u@host", {"STETHO_MQTT_PASSWORD_FILE": "/no/such"}, "cannot read the password"),
        ("mqtts://host", {"STETHO_MQTT_CA_FILE": "/no/such"}, "STETHO_MQTT_CA_FILE=/no/such"),
        ("mqtts://host", {"STETHO_MQTT_CERT_FILE": "/no/such"}, "STETHO_MQTT_CERT_FILE=/no/such"),
    ],
)
@pytest.mark.requirement("OUT-5")
def test_what_cannot_be_used_is_refused_before_the_stream_starts(
    url: str, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(StethoError, match=message) as refused:
        read_broker(url, environment)
    assert "secret" not in str(refused.value)
