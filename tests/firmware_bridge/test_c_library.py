"""The C library is clean under sanitizers, writes the same bytes as the Python code, and no input harms it."""

from __future__ import annotations

import ctypes
import random
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge.adpcm import AdpcmState, decode_adpcm, encode_adpcm
from firmware_bridge.audio import encode_audio
from firmware_bridge.constants import AckCode, Capability, Codec, EventCode, MessageType
from firmware_bridge.decoder import FrameDecoder, FrameFault
from firmware_bridge.framing import Frame, encode_frame, encode_message
from firmware_bridge.messages import (
    Command,
    DeviceEvent,
    End,
    Hello,
    Info,
    Log,
    Message,
    Reply,
    SetFormat,
    SetGain,
    Status,
    StreamFormat,
    Time,
    TimeRequest,
)
from tests.support.stethoscope import C_FOLDER, require, run


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("gcc", "make")
    return tmp_path_factory.mktemp("c")


@pytest.fixture(scope="module")
def program(build: Path) -> Path:
    """The C tests, built with address and undefined-behaviour sanitizers; they have passed."""
    assert "all passed" in run("make", "-C", C_FOLDER, f"BUILD={build}", "test", "CC=gcc")
    return build / "test_stetho_link"


def _golden() -> dict[str, bytes]:
    state = AdpcmState()
    s16 = np.array([(i * i * 37) % 20011 - 10000 for i in range(300)], np.int32)
    encode_audio(s16[:160], Codec.ADPCM, state)
    messages: dict[str, tuple[Message, int, int]] = {
        "info": (Info("SN-00042", "reference", (1, 2, 3), Capability(0x1FF), 0xDEADBEEF, (4000, 8000, 16000)), 0, 0),
        "format": (StreamFormat(16000, site_code=4, gain_cdb=-250, block=160, clock_id=7), 1, 0),
        "audio_s16": (encode_audio(s16, Codec.S16, state), 2, 160),
        "audio_s24": (
            encode_audio(np.array([0, 1, -1, 8388607, -8388608], np.int32), Codec.S24, state), 65535,
            0x0123456789ABCDEF,
        ),
        "audio_adpcm": (encode_audio(s16[160:299], Codec.ADPCM, state), 4, 320),
        "status": (Status(123456789012, 3, 5, 3700, 81, True, 31.5, 1), 5, 480),
        "event": (DeviceEvent(EventCode.BUTTON_DOWN, -2), 6, 481),
        "log": (Log(20, "hello"), 7, 482),
        "time": (Time(1000, 0x100000002, 0x100000003), 8, 483),
        "end": (End(484), 9, 484),
        "ack": (Reply(MessageType.START, AckCode.DONE, 513), 10, 0),
        "nack": (Reply(MessageType.SET_FORMAT, AckCode.NOT_NOW, 514), 11, 0),
    }  # fmt: skip
    return {name: encode_message(message, seq=seq, sample_index=at) for name, (message, seq, at) in messages.items()}


def test_both_write_the_golden_frames(program: Path) -> None:
    kept = dict(line.split() for line in (C_FOLDER / "golden_frames.txt").read_text("ascii").splitlines())
    from_c = dict(line.split() for line in run(program, "vectors").splitlines())
    from_python = {name: wire.hex() for name, wire in _golden().items()}
    assert from_c == kept
    assert from_python == kept


def _expected(wire: bytes) -> list[str]:
    """Expected output of the C decoder for a stream, from the Python decoder."""
    lines = []
    for item in FrameDecoder().feed(wire):
        if isinstance(item, FrameFault):
            lines.append("version" if item.reason == "version" else "fault")
        else:
            lines.append(
                f"frame {item.type} {item.flags} {item.stream} {item.seq} {item.sample_index} {item.payload.hex()}"
            )
    return lines


def test_c_decodes_what_python_encodes_noise_included(program: Path) -> None:
    rng = random.Random(7)
    wire = bytearray(b"\x11\x22\0")
    for seq in range(400):
        payload = bytes(rng.choice([0, 1, 255, rng.randrange(256)]) for _ in range(rng.choice([0, 9, 254, 700, 2048])))
        frame = Frame(rng.randrange(1, 128), seq, rng.getrandbits(64), payload, rng.randrange(256), rng.randrange(256))
        encoded = bytearray(encode_frame(frame))
        if seq % 5 == 0:
            encoded[rng.randrange(len(encoded))] ^= rng.randrange(1, 256)
        if seq % 7 == 0:
            encoded = bytearray(rng.randbytes(rng.choice([3, 300, 5000]))) + encoded
        if seq % 11 == 0:
            encoded += encode_frame(Frame(3, version=0x30))
        wire += encoded
    from_c = [line.rstrip() for line in run(program, "decode", input=wire.hex(" ")).splitlines()]
    assert from_c == [line.rstrip() for line in _expected(bytes(wire))]
    assert {line.split()[0] for line in from_c} == {"frame", "fault", "version"}


def test_c_parses_every_command(program: Path) -> None:
    commands: list[tuple[Message, str]] = [
        (Hello(), "0 1 1 0 0 0 0 255 0"),
        (Hello(2, 9), "5 2 9 0 0 0 0 255 0"),
        (Command(MessageType.START), "0 0 0 0 0 0 0 255 0"),
        (SetGain(-1234), "0 0 0 -1234 0 0 0 255 0"),
        (SetFormat(8000, 24, Codec.S24, 3), "0 0 0 0 8000 24 2 3 0"),
        (TimeRequest(2**63 + 5), f"0 0 0 0 0 0 0 255 {2**63 + 5}"),
    ]
    wire = b"".join(encode_message(command, seq=1) for command, _ in commands)
    wire += encode_frame(Frame(0xF0)) + encode_frame(Frame(MessageType.SET_GAIN, payload=b"1"))
    output = run(program, "decode", input=wire.hex(" ")).splitlines()
    outcomes = [line.split(" command ")[1] for line in output]
    assert outcomes[:-2] == [expected for _, expected in commands]
    assert [line.split()[0] for line in outcomes[-2:]] == ["1", "2"]


class _State(ctypes.Structure):
    _fields_ = (("predictor", ctypes.c_int16), ("index", ctypes.c_uint8))


def test_c_and_python_adpcm_agree_to_the_byte(build: Path) -> None:
    library = build / "libstetho_link.so"
    run("gcc", "-std=c99", "-O2", "-shared", "-fPIC", C_FOLDER / "stetho_link.c", "-o", library)
    c = ctypes.CDLL(str(library))
    c.sl_adpcm_encode.restype = ctypes.c_size_t
    rng = np.random.default_rng(1)
    state, state_c = AdpcmState(), _State(0, 0)
    out = (ctypes.c_uint8 * 200)()
    for _ in range(300):
        swing = int(rng.choice([3, 50, 2000, 32768]))
        samples = rng.integers(-swing, swing, int(rng.integers(1, 300))).astype(np.int16)
        pointer = samples.ctypes.data_as(ctypes.c_void_p)
        size = c.sl_adpcm_encode(
            ctypes.byref(state_c), pointer, ctypes.c_size_t(samples.size), out, ctypes.c_size_t(200)
        )
        block = encode_adpcm(samples.tolist(), state)
        assert bytes(out[:size]) == block
        assert (state_c.predictor, state_c.index) == (state.predictor, state.index)
        back = np.zeros_like(samples)
        assert c.sl_adpcm_decode(
            block, ctypes.c_size_t(size), back.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(samples.size)
        )
        assert back.tolist() == decode_adpcm(block, samples.size)


def test_mutated_frames_do_no_harm(build: Path) -> None:
    output = run("make", "-C", C_FOLDER, f"BUILD={build}", "fuzz", "ROUNDS=30000", "CC=gcc")
    assert re.search(r"30000 inputs, \d{7,} bytes, no fault", output)


def _libfuzzer(build: Path, rounds: int) -> str:
    """Guided by coverage, from the golden frames on."""
    require("clang")
    corpus = build / "corpus"
    corpus.mkdir(exist_ok=True)
    for name, wire in _golden().items():
        (corpus / name).write_bytes(wire)
    options = ["fuzz-libfuzzer", f"ROUNDS={rounds}", f"CORPUS={corpus}"]
    done = subprocess.run(
        ["make", "-C", str(C_FOLDER), f"BUILD={build}", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_libfuzzer_finds_nothing(build: Path) -> None:
    assert "number_of_executed_units: 50000" in _libfuzzer(build, 50_000)


@pytest.mark.long
def test_mutated_frames_and_libfuzzer_find_nothing_for_long(build: Path) -> None:
    assert "number_of_executed_units: 5000000" in _libfuzzer(build, 5_000_000)
    output = run("make", "-C", C_FOLDER, f"BUILD={build}", "fuzz", "ROUNDS=3000000", "SEED=2", "CC=gcc", timeout_s=1200)
    assert "3000000 inputs" in output and "no fault" in output


def test_the_library_needs_no_heap_and_no_libc_but_string_h() -> None:
    for name in ("stetho_link.h", "stetho_link.c"):
        text = (C_FOLDER / name).read_text("utf-8")
        included = set(re.findall(r"#include\s*<(\w+\.h)>", text))
        assert included <= {"string.h", "stdint.h", "stddef.h"}
        assert not re.search(r"\b(malloc|calloc|realloc|free|printf|alloca)\s*\(", text)
