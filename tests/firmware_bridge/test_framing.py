"""The protocol agrees with its page byte for byte, and every message survives a round trip."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.corpora import SITES as CORPUS_SITES
from firmware_bridge.cobs import cobs_decode
from firmware_bridge.constants import SITES, Capability, MessageType
from firmware_bridge.errors import ProtocolError
from firmware_bridge.framing import Frame, encode_frame, encode_message, parse, parse_body
from firmware_bridge.messages import (
    Audio,
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
)  # fmt: skip

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
S16 = st.integers(-32768, 32767)
# At most four bytes a character: sixteen bytes are never cut.
_SHORT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
_SOME_U32 = st.integers(1, 2**32 - 1)
_MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Info, _SHORT, _SHORT, st.tuples(U8, U8, U8), st.integers(0, 511).map(Capability), U32,
              st.lists(U32, max_size=9).map(tuple), U8, U8),
    st.builds(StreamFormat, _SOME_U32, _SOME_U32, U8, st.integers(1, 255), U8, U8, S16, U16, U32),
    st.builds(Audio, U8, U16, st.binary(max_size=900)),
    st.builds(Status, U64, U32, U32, U16, st.none() | st.integers(0, 100), st.none() | st.booleans(),
              st.none() | st.integers(-5000, 9000).map(lambda c: c / 100), U8),
    st.builds(DeviceEvent, U8, st.integers(-(2**31), 2**31 - 1)),
    st.builds(Log, U8, _SHORT),
    st.builds(Time, U64, U64, U64),
    st.builds(End, U64, U8),
    st.builds(Reply, U8, U8, U16),
    st.sampled_from(["START", "STOP", "GET_INFO", "PING"]).map(lambda name: Command(MessageType[name])),
    st.builds(Hello, U8, U8),
    st.builds(SetGain, S16),
    st.builds(SetFormat, U32, U8, U8, U8),
    st.builds(TimeRequest, U64),
)  # fmt: skip


@given(_MESSAGES, U16, U64, U8, U8)
def test_every_message_survives_a_round_trip(message: Message, seq: int, index: int, flags: int, stream: int) -> None:
    wire = encode_message(message, seq=seq, sample_index=index, flags=flags, stream=stream)
    assert wire[0] == wire[-1] == 0
    assert 0 not in wire[1:-1]
    frame = parse_body(cobs_decode(wire[1:-1]))
    assert frame == Frame(message.TYPE, seq, index, message.pack(), flags, stream)
    assert parse(frame) == message


@given(_MESSAGES, st.binary(min_size=1, max_size=9))
def test_a_later_minor_version_may_append_fields(message: Message, more: bytes) -> None:
    if isinstance(message, (Audio, Log, Info)):  # these end in a part of open length; Info's is counted
        message = Info("a", "b", rates_hz=(4000,))
    assert parse(Frame(message.TYPE, payload=message.pack() + more)) == message


@given(_MESSAGES)
def test_a_payload_cut_short_is_refused(message: Message) -> None:
    fixed = {Audio: 4, Log: 1}.get(type(message), len(message.pack()))
    if fixed:
        with pytest.raises(ProtocolError):
            parse(Frame(message.TYPE, payload=message.pack()[: fixed - 1]))


def test_the_crc_is_zlibs_over_header_and_payload() -> None:
    body = cobs_decode(encode_message(SetGain(-250), seq=9)[1:-1])
    assert int.from_bytes(body[-4:], "little") == zlib.crc32(body[:-4])


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_any_flipped_bit_of_a_body_is_detected(position: int, bit: int) -> None:
    body = bytearray(cobs_decode(encode_message(Log(20, "breathe in"), seq=3, sample_index=77)[1:-1]))
    body[position % len(body)] ^= 1 << bit
    with pytest.raises(ProtocolError):
        parse_body(bytes(body))


def test_unknown_types_are_skipped_and_impossible_frames_refused() -> None:
    assert parse(Frame(0x55, payload=b"from the future")) is None
    with pytest.raises(ProtocolError, match="2049"):
        encode_frame(Frame(MessageType.AUDIO, payload=bytes(2049)))
    with pytest.raises(ProtocolError, match="out of range"):
        encode_frame(Frame(MessageType.AUDIO, sample_index=-1))
    with pytest.raises(ProtocolError, match="no rate"):
        parse(Frame(MessageType.FORMAT, payload=StreamFormat(0).pack()))


def test_the_page_agrees_with_the_code(repo_root: Path) -> None:
    """The example, the numbers of the types and the length of each page."""
    page = (repo_root / "firmware_bridge" / "PROTOCOL.md").read_text("utf-8")
    wire = encode_message(Command(MessageType.PING), seq=7)
    assert wire.hex(" ") in page
    assert cobs_decode(wire[1:-1])[-4:].hex(" ") in page
    documented = {name: int(code, 16) for code, name in re.findall(r"`([0-9A-F]{2})` ([A-Z_]+)", page)}
    assert documented == {member.name: member.value for member in MessageType}
    assert len(page.splitlines()) <= 62  # one page


def test_long_names_are_cut_between_characters() -> None:
    info = parse(Frame(MessageType.INFO, payload=Info("ü" * 9 + "x", "plain").pack()))
    assert isinstance(info, Info)
    assert info.serial == "ü" * 8


def test_the_wire_names_body_sites_as_the_corpora_do() -> None:
    """The bridge stands alone and keeps its own list; a classifier conditioned on the site must know every name."""
    assert (None, *CORPUS_SITES) == SITES
