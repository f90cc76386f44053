"""What all tests of the step share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _names_begin_anew() -> None:
    """Keras counts the layers of a process in their names, and draws weights from one generator."""
    keras = pytest.importorskip("keras")
    keras.utils.clear_session(free_memory=False)  # collecting garbage takes half a second
    keras.utils.set_random_seed(0)
