"""Streams over WebSocket: the same lines as ``listen``, exact losses, slow readers, the live source, the end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import struct
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import websockets

from edge_sdk.errors import DeviceChangedError
from edge_sdk.events import AudioBlock
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.runtime.session import Session
from edge_sdk.screening.recordings import summary_labels
from edge_sdk.server.security import connections
from edge_sdk.server.settings import ServerLimits
from edge_sdk.sinks.jsonl import JsonlSink
from edge_sdk.sources import open_source
from edge_sdk.sources.phantom import PhantomSource
from tests.server.serving import Served, ServedHere, comparable, eventually, frames, stream_lines
from tests.support.tiny_bundle import write_tiny_bundle

RATE = 8000
HEADER = {"rate": RATE, "format": "s16le", "channels": 1}
Pcm = npt.NDArray[np.int16]


def test_a_stream_gives_the_lines_of_listen_and_a_recording_that_gives_them_again(
    served: Served, pcm: Pcm, wav: Path
) -> None:
    lines, code, _ = stream_lines(served.ws_url, HEADER, frames(pcm, RATE), token=served.token)
    assert code == 1000 and lines[-1]["type"] == "summary"
    bundle = load_bundle()
    listened: list[dict[str, Any]] = []
    sink = JsonlSink(listened.append, summary_labels(bundle), running=True)
    Session(open_source(str(wav), paced=True, speed=100), bundle, [sink]).run()
    assert comparable(lines) == comparable(listened)
    recorded = served.recordings / f"{lines[0]['recording']}.flac"
    np.testing.assert_array_equal(soundfile.read(recorded, dtype="int16")[0], pcm)


def test_a_tenth_of_the_frames_lost_is_counted_exactly(tiny: Bundle, pcm: Pcm, tmp_path: Path) -> None:
    lost = frozenset(np.random.default_rng(3).choice(np.arange(1, 150), 15, replace=False).tolist())
    with ServedHere(tmp_path, tiny) as server:
        header = {**HEADER, "numbered": True}
        lines, _, _ = stream_lines(server.ws_url, header, frames(pcm, RATE, numbered=True, drop=lost))
    gaps = [line["lost_samples"] for line in lines if line["type"] == "gap"]
    missing = sum(len(pcm[k * 800 : (k + 1) * 800]) for k in lost)
    assert sum(gaps) + (800 if 149 in lost else 0) == missing
    assert lines[-1]["lost_samples"] == sum(gaps)
    audio = soundfile.read(tmp_path / f"{lines[0]['recording']}.flac", dtype="int16")[0]
    kept = [k for k in range(150) if k not in lost]
    np.testing.assert_array_equal(audio.reshape(-1, 800)[kept], pcm.reshape(-1, 800)[kept])


@pytest.mark.parametrize(
    ("header", "messages", "reason"),
    [
        ({**HEADER, "patient": "Jane Doe"}, [], "never by a name"),
        ({**HEADER, "metadata": {"name": "x"}}, [], "unknown metadata name"),
        ({**HEADER, "examination": "exam-../../x", "point": "left upper back"}, [], "no such examination"),
        ({"source": "live"}, [], "no live source"),
        (HEADER, [b"\x00" * 1601], "whole samples"),
        (HEADER, ["hello"], "only text"),
        ({**HEADER, "numbered": True}, [struct.pack("<Q", 1 << 63) + b"\x00" * 4], "too far"),
        ({**HEADER, "format": "f32le"}, [struct.pack("<f", float("nan"))], "NaN"),
    ],
)
def test_garbage_ends_its_own_stream_with_a_reason(
    tiny_server: ServedHere, header: dict[str, Any], messages: list[bytes | str], reason: str
) -> None:
    lines, code, given = stream_lines(tiny_server.ws_url, header, messages)
    assert code == 4022 and reason in given
    assert any(line["type"] == "error" and reason in line["message"] for line in lines)


@pytest.fixture(scope="module")
def tiny_server(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with ServedHere(tmp_path_factory.mktemp("tiny"), tiny, limits=ServerLimits(streams=2, patience_s=0.5)) as server:
        yield server


def test_no_more_streams_than_allowed_and_a_silent_client_is_let_go(tiny_server: ServedHere, pcm: Pcm) -> None:
    async def crowd() -> list[int | None]:
        url = f"{tiny_server.ws_url}/api/streams"
        async with websockets.connect(url) as one, websockets.connect(url) as two, websockets.connect(url) as three:
            await three.wait_closed()
            await asyncio.gather(one.wait_closed(), two.wait_closed())  # they send no header
            return [one.close_code, two.close_code, three.close_code]

    assert asyncio.run(crowd()) == [4008, 4008, 4029]
    eventually(lambda: "stetho_streams 0.0" in tiny_server.client().get("/metrics").text)


def test_a_client_that_does_not_read_is_dropped_with_a_notice_and_harms_nobody(
    tiny: Bundle, pcm: Pcm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_SEND_BUFFER", 4096)
    source = PhantomSource("asthma", duration_s=None, sample_rate=RATE, paced=True, speed=20)
    limits = ServerLimits(outbox=4)
    with ServedHere(tmp_path, tiny, source=source, limits=limits, record_live=False) as server:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        upgrade = f"Host: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}"
        slow.sendall(f"GET /api/live HTTP/1.1\r\n{upgrade}\r\n".encode())
        client = server.client()
        eventually(lambda: "stetho_clients_dropped_total 1.0" in client.get("/metrics").text)
        received = b""
        slow.settimeout(5)
        while chunk := slow.recv(1 << 16):
            received += chunk
        assert b"dropped: 32 messages wait and none is read" in received
        lines, code, _ = stream_lines(server.ws_url, HEADER, frames(pcm, RATE))
        assert code == 1000 and lines[-1]["duration_s"] == 15.0
        assert any(line.get("reason") == "slow-reader" for line in server.audit())


def test_a_live_page_gets_the_last_minute_and_then_everything_once(served: Served) -> None:
    async def watch() -> tuple[list[tuple[int, int]], list[dict[str, Any]]]:
        spans, lines = [], []
        headers = {"Authorization": f"Bearer {served.token}"}
        async with websockets.connect(f"{served.ws_url}/api/live", additional_headers=headers) as viewer:
            end = time.monotonic() + 2.0
            while time.monotonic() < end:
                message = await viewer.recv()
                if isinstance(message, bytes):
                    first = struct.unpack_from("<Q", message)[0]
                    spans.append((first, first + (len(message) - 8) // 2))
                else:
                    lines.append(json.loads(message))
        return spans, lines

    eventually(lambda: served.client().get("/metrics").text.count('stetho_cycles_total{label="normal",'))
    spans, lines = asyncio.run(watch())
    assert all(before[1] == after[0] for before, after in pairwise(spans))  # no hole, no repetition
    assert lines[0]["type"] == "live" and {"state", "cycle", "verdict"} <= {line["type"] for line in lines}
    cycles = [(line["start_s"], line["end_s"]) for line in lines if line["type"] == "cycle"]
    assert len(set(cycles)) == len(cycles) >= 2


def test_a_point_of_an_examination_records_until_the_gate_is_content(served: Served) -> None:
    with served.client() as client:
        exam = client.post("/api/examinations", json={"patient": "P-9"}).json()
        header = {"source": "live", "examination": exam["id"], "until": "content", "patient": "P-9"}
        site = {"metadata": {"site": "right anterior"}, "point": "right upper front"}

        async def talk() -> list[dict[str, Any]]:
            headers = {"Authorization": f"Bearer {served.token}"}
            async with websockets.connect(f"{served.ws_url}/api/streams", additional_headers=headers) as stream:
                await stream.send(json.dumps({**header, **site}))
                return [json.loads(text) async for text in stream]

        lines = asyncio.run(asyncio.wait_for(talk(), 30))
        states = [line for line in lines if line["type"] == "point"]
        assert states[0]["reason"] == "waiting for audio" and states[-1]["content"]
        assert states[-1]["usable_s"] >= states[-1]["needed_s"] and states[-1]["cycles"] >= 2
        found = client.get(f"/api/examinations/{exam['id']}").json()
        assert list(found["points"]) == ["right upper front"] and len(found["missing"]) == 11
        assert (found["verdict"], found["verdict_reason"]) in (("uncertain", "too-few-points"), ("abnormal", None))
        row = client.get(f"/api/recordings/{found['points']['right upper front']['recording']}").json()
        assert (row["point"], row["site"], row["patient"]) == ("right upper front", "right anterior", "P-9")
        assert client.post(f"/api/examinations/{exam['id']}/finish").json()["complete"]
        _, code, reason = stream_lines(served.ws_url, {**header, **site}, [], token=served.token)
        assert code == 4022 and "finished" in reason


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_a_signal_ends_everything_with_its_summary(pcm: Pcm, tmp_path: Path, number: signal.Signals) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny", untrained=False)
    folder = tmp_path / "recordings"
    with Served(folder, "--source", "phantom:healthy", "--speed", "4", "--bundle", str(bundle)) as server:

        async def stream() -> list[dict[str, Any]]:
            async with websockets.connect(f"{server.ws_url}/api/streams") as client:
                await client.send(json.dumps(HEADER))
                for message in frames(pcm, RATE):
                    await client.send(message)
                await asyncio.sleep(0.5)
                server.process.send_signal(number)
                return [json.loads(text) async for text in client]

        lines = asyncio.run(asyncio.wait_for(stream(), 30))
        out, err = server.process.communicate(timeout=20)
    assert server.process.returncode == 0 and err == ""
    assert lines[-1]["type"] == "summary" and lines[-1]["duration_s"] > 5
    summary = json.loads(out.splitlines()[-1])
    assert summary["type"] == "summary" and summary["source"].startswith("phantom:healthy")
    sessions = [json.loads(path.read_text("utf-8")) for path in folder.glob("*.session.json")]
    assert len(sessions) == 2 and all(session["complete"] for session in sessions)


def test_overall_verdict_of_points() -> None:
    from edge_sdk.server.guided import overall

    assert overall(["normal"] * 5) == ("uncertain", "too-few-points")
    assert overall(["normal"] * 6) == ("normal", None)
    assert overall(["normal"] * 11 + ["abnormal"]) == ("abnormal", None)
    assert overall(["normal"] * 6 + ["uncertain"]) == ("uncertain", "uncertain-points")
    assert overall([]) == ("uncertain", "too-few-points")


def test_notes_on_the_audio_are_in_the_summary_of_a_stream(tiny_server: ServedHere, pcm: Pcm) -> None:
    """2 kHz is less than the front end uses."""
    lines, _, _ = stream_lines(tiny_server.ws_url, {"rate": 2000, "format": "s16le"}, frames(pcm[: 2000 * 8], 2000))
    assert any("band-limited" in note for note in lines[-1]["notes"])


class TwoDevices:
    """A source whose device is replaced after 8 s by one of another rate."""

    name, sample_rate, live = "serial:test", 4000, False

    def __init__(self) -> None:
        self._devices = [{"serial_number": "A"}, {"serial_number": "B"}]
        self.closed = False

    @property
    def device(self) -> dict[str, str]:
        return self._devices[0]

    def new_session(self) -> None:
        self._devices.pop(0)
        self.name, self.sample_rate = "serial:test#2", 8000

    def __iter__(self) -> Iterator[AudioBlock]:
        with PhantomSource("asthma", duration_s=8.0, sample_rate=self.sample_rate) as source:
            yield from source
        if len(self._devices) == 2:
            raise DeviceChangedError(
                "another device", reason="serial number", previous={}, device={}, at=32_000, sample_rate=8000
            )

    def close(self) -> None:
        self.closed = True


def test_another_device_of_the_live_source_begins_a_recording_without_the_patient(tiny: Bundle, tmp_path: Path) -> None:
    source = TwoDevices()
    with ServedHere(tmp_path, tiny, source=source, patient="p1", source_metadata={"sex": "female"}) as server:
        eventually(lambda: source.closed)
        with server.client() as client:
            assert client.get("/healthz").json().get("message") is None
    sessions = [json.loads(path.read_text("utf-8")) for path in sorted(tmp_path.glob("*.session.json"))]
    first, second = sorted(sessions, key=lambda session: str(session["device"]["serial_number"]))
    assert (first["sample_rate"], second["sample_rate"]) == (4000, 8000)
    assert (first["patient"], first["metadata"]) == ("p1", {"sex": "female"})
    assert "patient" not in second and second["metadata"] == {} and second["complete"]
    assert first["bundle"] == tiny.identity and "another" not in str(second.get("ended"))
