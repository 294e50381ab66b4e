"""A killed server: recordings end less than a second before, corrections are whole."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import soundfile
import websockets

from edge_sdk.runtime.bundle.load import Bundle
from tests.server.serving import Served, ServedHere
from tests.support.tiny_bundle import write_tiny_bundle

RATE = 8000


def test_kill_9_while_three_clients_stream_and_a_review_is_saved(
    pcm: npt.NDArray[np.int16], tiny: Bundle, tmp_path: Path
) -> None:
    folder = tmp_path / "recordings"
    bundle = write_tiny_bundle(tmp_path / "tiny", untrained=False)
    saved = 0
    with Served(folder, "--bundle", str(bundle)) as server:

        async def stream(seconds: float, done: asyncio.Event) -> tuple[str, int]:
            async with websockets.connect(f"{server.ws_url}/api/streams") as client:
                await client.send(json.dumps({"rate": RATE, "format": "s16le"}))
                name = json.loads(await client.recv())["recording"]
                begin = time.monotonic()
                sent = 0
                while not done.is_set():
                    for message in (pcm[sent % pcm.size :][:800],):
                        await client.send(message.astype("<i2").tobytes())
                        sent += message.size
                    await asyncio.sleep(max(0.0, begin + sent / RATE - time.monotonic()))
                return name, sent

        async def review(done: asyncio.Event) -> int:
            await asyncio.sleep(1.0)
            count = 0
            client = server.client()
            rows = (await asyncio.to_thread(client.get, "/api/recordings")).json()["recordings"]
            path = f"/api/recordings/{rows[0]['id']}/corrections"
            while not done.is_set():
                body = {"action": "add", "start_s": 0.1, "end_s": 0.5, "label": "both", "who": "ab"}
                try:
                    count += (await asyncio.to_thread(client.post, path, json=body)).status_code == 201
                except httpx.TransportError:  # it was killed before it answered
                    break
                await asyncio.sleep(0.02)
            return count

        async def all_of_it() -> list[Any]:
            done = asyncio.Event()
            work = [asyncio.create_task(stream(3.0, done)) for _ in range(3)]
            work.append(asyncio.create_task(review(done)))  # type: ignore[arg-type]
            await asyncio.sleep(3.0)
            server.process.send_signal(signal.SIGKILL)
            done.set()
            return list(await asyncio.gather(*work))

        *streams, saved = asyncio.run(all_of_it())
        server.process.communicate(timeout=20)
    for name, sent in streams:
        audio, _ = soundfile.read(folder / f"{name}.flac", dtype="int16")
        assert sent - audio.size <= RATE, "more than a second of the recording is lost"
        np.testing.assert_array_equal(audio, np.resize(pcm, audio.size))
        assert json.loads((folder / f"{name}.session.json").read_text("utf-8"))["complete"] is False
    (corrections,) = folder.glob("*.corrections.jsonl")
    lines = [json.loads(line) for line in corrections.read_text("utf-8").splitlines()]
    assert saved > 0 and len(lines) >= saved and lines[-1]["seq"] == len(lines)
    with ServedHere(folder, tiny) as again, again.client() as client:
        rows = client.get("/api/recordings").json()["recordings"]
        assert len(rows) == 3 and not any(row["complete"] for row in rows)
        found = client.get(f"/api/recordings/{rows[0]['id']}").json()
        assert found["audio_s"] > 1.0
