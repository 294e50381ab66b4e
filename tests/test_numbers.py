"""Numbers from outside: what is none, in whatever script or length, is refused by every reader in its own words."""

from __future__ import annotations

import pytest
import typer

from edge_sdk.cli.options import channel_of
from edge_sdk.errors import SourceError, StethoError
from edge_sdk.exchange.annotations.texts import span_of
from edge_sdk.numbers import dbfs, whole_number
from edge_sdk.sinks.metrics import metrics_address
from edge_sdk.sources import open_source


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("007", 7), ("9" * 18, 10**18 - 1)])
def test_digits_are_a_number(text: str, number: int) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", "1_0", " 1", "²", "٣", "9" * 19, "9" * 5000])
def test_anything_else_is_none(text: str) -> None:
    assert whole_number(text) is None


@pytest.mark.parametrize("digits", ["٣", "9" * 5000])
def test_every_reader_refuses_it_in_its_own_words(digits: str) -> None:
    with pytest.raises(typer.BadParameter, match="neither a channel number"):
        channel_of(digits)
    with pytest.raises(SourceError, match="is no whole number"):
        open_source(f"phantom:asthma:{digits}")
    with pytest.raises(StethoError, match="is not PORT"):
        metrics_address(digits)
    assert type(span_of(f"gap: {digits}", 0.0, 1.0)).__name__ == "CycleSpan"  # a label that somebody typed


@pytest.mark.parametrize(
    ("level", "text"), [(-0.3, "0 dBFS"), (0.0, "0 dBFS"), (-22.6, "-23 dBFS"), (-float("inf"), "-inf dBFS")]
)
def test_a_level_has_no_negative_zero(level: float, text: str) -> None:
    assert dbfs(level) == text
