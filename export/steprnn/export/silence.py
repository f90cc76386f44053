"""TensorFlow's logger, kept from telling whoever calls `export` of assets and deprecations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf


@contextmanager
def errors_alone() -> Iterator[None]:
    """TensorFlow's logger at errors for a while; as a decorator, for as long as the function runs.

    What it would say besides is of no use: the graphs are checked.
    """
    log = tf.get_logger()
    before = log.level
    log.setLevel("ERROR")
    try:
        yield
    finally:
        log.setLevel(before)
