"""Send a recording to ``stetho serve`` as a stethoscope would, and print the lines that come back."""

from __future__ import annotations

import asyncio
import json
import sys

import soundfile
import websockets


async def send(url: str, path: str, token: str | None = None) -> None:
    """Stream a recording in messages of 100 ms."""
    pcm, rate = soundfile.read(path, dtype="int16")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with websockets.connect(f"{url}/api/streams", additional_headers=headers) as socket:
        await socket.send(json.dumps({"rate": rate, "format": "s16le", "metadata": {"site": "left posterior"}}))
        for begin in range(0, len(pcm), rate // 10):
            await socket.send(pcm[begin : begin + rate // 10].tobytes())
        await socket.send('{"type": "end"}')
        async for line in socket:
            print(line)


if __name__ == "__main__":
    asyncio.run(send(*sys.argv[1:]))  # ws://127.0.0.1:8000 recording.wav [TOKEN]
