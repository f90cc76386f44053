"""What the tests of judging share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("keras")
pytest.importorskip("tf2onnx")

from steprnn.export.formats.frozen import frozen_once


@pytest.fixture(scope="module")
def traced_once() -> Iterator[None]:
    """As in an export and a check, a step's graph is made once: for tests that change the weights of none."""
    with frozen_once():
        yield
