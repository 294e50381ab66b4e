"""Each kind of head turns logits into probabilities and into the label that its thresholds give."""

from __future__ import annotations

import textwrap

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.metrics import CLASSES
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, load_bundle
from edge_sdk.runtime.bundle.schema import Decoder, decode_manifest
from edge_sdk.runtime.decoding import MULTILABEL, decide, decode, decoder_problem, logit_count

FOUR = list(CLASSES)
numbers = st.floats(-1e4, 1e4)


def _logits(rows: list[list[float]]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_multilabel_bits_spell_the_four_classes() -> None:
    assert MULTILABEL == CLASSES
    logits = _logits([[-9, -9], [9, -9], [-9, 9], [9, 9]])
    probabilities = decode(logits, Decoder(kind="multilabel"))
    assert decide(probabilities, Decoder(kind="multilabel")).tolist() == [0, 1, 2, 3]
    p_crackle, p_wheeze = 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(2.0))
    row = decode(_logits([[1.0, -2.0]]), Decoder(kind="multilabel"))[0]
    expected = [(1 - p_crackle) * (1 - p_wheeze), p_crackle * (1 - p_wheeze), (1 - p_crackle) * p_wheeze]
    np.testing.assert_allclose(row, [*expected, p_crackle * p_wheeze], atol=1e-12)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8), st.floats(0.1, 9.0), numbers)
def test_every_kind_gives_rows_that_sum_to_one_without_overflow(
    rows: list[tuple[float, float]], temperature: float, bias: float
) -> None:
    logits = _logits([list(row) for row in rows])
    for kind, columns in (("softmax", 2), ("multilabel", 2), ("binary", 1)):
        decoder = Decoder(kind=kind, temperature=temperature, bias=[bias] * columns)  # type: ignore[arg-type]
        probabilities = decode(logits[:, :columns], decoder)
        assert np.isfinite(probabilities).all() and (probabilities >= 0).all()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-9)


def test_binary_logit_is_the_probability_of_abnormal() -> None:
    probabilities = decode(_logits([[2.0], [-2.0]]), Decoder(kind="binary", temperature=2.0, bias=[0.5]))
    np.testing.assert_allclose(probabilities[:, 1], [1 / (1 + np.exp(-1.5)), 1 / (1 + np.exp(0.5))])
    assert decide(probabilities, Decoder(kind="binary")).tolist() == [1, 0]
    assert decide(probabilities, Decoder(kind="binary", threshold=0.3)).tolist() == [1, 1]


def test_each_adventitious_sound_has_its_own_threshold() -> None:
    probabilities = decode(_logits([[0.0, 0.0]]), Decoder(kind="multilabel"))  # both at one half
    for threshold, expected in (([0.4, 0.6], 1), ([0.6, 0.4], 2), ([0.6, 0.6], 0), ([0.4, 0.4], 3), (0.6, 0)):
        assert decide(probabilities, Decoder(kind="multilabel", threshold=threshold)).tolist() == [expected]


def test_softmax_without_threshold_is_the_most_probable_label() -> None:
    random = np.random.default_rng(0)
    probabilities = decode(random.normal(size=(200, 4)), Decoder(temperature=0.7, bias=[0.3, 0.0, -0.2, 0.1]))
    assert (decide(probabilities, Decoder()) == probabilities.argmax(axis=1)).all()


def test_softmax_threshold_asks_for_abnormal_before_it_asks_which() -> None:
    probabilities = np.array([[0.5, 0.1, 0.3, 0.1], [0.8, 0.1, 0.05, 0.05]])
    assert decide(probabilities, Decoder(threshold=0.4)).tolist() == [2, 0]
    assert decide(probabilities, Decoder(threshold=0.1)).tolist() == [2, 1]
    assert decide(probabilities, Decoder(threshold=0.9)).tolist() == [0, 0]
    healthy_last = probabilities[:, ::-1]
    assert decide(healthy_last, Decoder(threshold=0.4), normal=3).tolist() == [1, 3]


def test_disease_labels_are_a_softmax_like_any_other() -> None:
    labels = ["asthma", "copd", "healthy", "pneumonia"]
    assert logit_count("softmax", labels) == 4
    assert decoder_problem(Decoder(normal_label="healthy", bias=[0.0] * 4), labels) is None


def test_logit_count_follows_the_kind() -> None:
    assert [logit_count(kind, CLASSES) for kind in ("softmax", "multilabel")] == [4, 2]
    assert logit_count("binary", ["normal", "abnormal"]) == 1


@pytest.mark.parametrize(
    ("decoder", "labels", "message"),
    [
        (Decoder(kind="multilabel"), ["normal", "wheeze", "crackle", "both"], "needs the labels normal, crackle"),
        (Decoder(kind="binary"), FOUR, "needs two labels"),
        (Decoder(kind="binary"), ["abnormal", "normal"], "normal label first"),
        (Decoder(kind="multilabel", bias=[0.0] * 4), FOUR, "4 biases for 2 logits"),
        (Decoder(kind="multilabel", threshold=[0.1, 0.2, 0.3]), FOUR, "3 thresholds"),
        (Decoder(threshold=[0.1, 0.2]), FOUR, "2 thresholds for decoder softmax"),
        (Decoder(kind="multilabel", threshold=[0.1, 1.2]), FOUR, "between 0 and 1"),
        (Decoder(threshold=float("nan")), FOUR, "between 0 and 1"),
        (Decoder(temperature=0.0), FOUR, "temperature must be positive"),
    ],
)
def test_a_decoder_that_does_not_match_its_labels_is_refused_with_the_reason(
    decoder: Decoder, labels: list[str], message: str
) -> None:
    assert message in (decoder_problem(decoder, labels) or "")


def test_the_decoder_of_the_shipped_bundle_is_read_and_written_unchanged() -> None:
    text = (DEFAULT_BUNDLE / "bundle.json").read_bytes()
    decoder = decode_manifest(text).decoder
    written = msgspec.json.format(msgspec.json.encode(decoder), indent=2).decode()
    assert textwrap.indent(written, "  ").strip() in text.decode()


def test_a_bundle_decides_by_its_own_decoder() -> None:
    bundle = load_bundle()
    probabilities = np.eye(4)[[2, 0, 3]]
    assert bundle.classifier.decide(probabilities).tolist() == [2, 0, 3]
