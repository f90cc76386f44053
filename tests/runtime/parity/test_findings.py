"""What is told of a candidate: who it is, at what level, and in whose words it failed."""

from __future__ import annotations

import time

import pytest

from steprnn.runtime.parity.findings import BUNDLE, STEP, Finding, Label, Level, attempt

LABEL = Label("onnx-float32", "onnx")


def test_who_is_judged() -> None:
    assert str(LABEL) == "onnx-float32 in onnx"
    assert str(Label("theirs")) == "theirs"
    assert (str(STEP), str(BUNDLE)) == ("the step", "the bundle")


def test_a_failure_in_words() -> None:
    finding = Finding(Level.FREE_RUN, LABEL, False, "leaves at 3", "it departs")
    assert finding.title == "free run"
    assert str(finding) == "onnx-float32 in onnx fails at the level 'free run': it departs"
    chained = Finding(Level.CHAINED, LABEL, False, "9 u", "y is off", case="noise")
    assert chained.title == "chained, noise"
    assert str(chained) == "onnx-float32 in onnx fails at the level 'chained, noise': y is off"
    assert (finding.figures, finding.measures) == ({}, None)


def test_what_is_found_is_handed_on() -> None:
    finding = Finding(Level.BATCH, LABEL, True, "1 u")
    found = attempt(Level.BATCH, LABEL, lambda: finding)
    assert found == finding
    assert 0 < found.seconds < 1
    slow = attempt(Level.BATCH, LABEL, lambda: (time.sleep(0.02), finding)[1])
    assert slow.seconds >= 0.02


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("line one\n   and\ttwo "), "line one and two"),
        (MemoryError(), "MemoryError"),
        (RuntimeError(" \n "), "RuntimeError"),
        (RuntimeError("x" * 501), "x" * 500),
    ],
    ids=["lines", "nothing", "blank", "long"],
)
def test_an_engine_that_raises_fails_in_its_own_words(error: Exception, words: str) -> None:
    def raising() -> Finding:
        raise error

    expected = Finding(Level.CHAINED, LABEL, False, "broke", f"it does not run: {words}", case="noise")
    assert attempt(Level.CHAINED, LABEL, raising, "noise") == expected
    assert attempt(Level.CHAINED, LABEL, raising).title == "chained"


def test_somebody_who_wants_to_stop_is_not_a_finding() -> None:
    def interrupted() -> Finding:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(Level.CHAINED, LABEL, interrupted)
