"""The classifier that the streams of these tests share."""

from __future__ import annotations

import pytest

from edge_sdk.runtime.bundle.load import load_bundle
from edge_sdk.runtime.classifier import Classifier
from tests.support.tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    return load_bundle(folder, allow_untrained=True).classifier
