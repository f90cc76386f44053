"""A candidate with a usual mistake is told which one it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")

from keras import layers  # noqa: E402

from steprnn.export.check.diagnosis import _changes  # noqa: E402
from steprnn.export.check.judge import judge_all  # noqa: E402
from steprnn.export.check.renamed import foreign_candidate  # noqa: E402
from steprnn.export.formats import onnx as onnx_writer  # noqa: E402
from steprnn.export.step.contract import Step  # noqa: E402
from steprnn.export.step.derive import derive  # noqa: E402
from steprnn.runtime.parity.findings import Finding  # noqa: E402
from steprnn.runtime.parity.profiles import PROFILES  # noqa: E402

from ..models import shaken  # noqa: E402

TOKENS, UNITS = 20, 6


def build(cell: Any) -> Step:
    keras.utils.set_random_seed(0)
    x = keras.Input((None,), dtype="int32")
    y = layers.LayerNormalization()(layers.Embedding(TOKENS, 5)(x))
    y = cell(UNITS, return_sequences=True)(y)
    return derive(shaken(keras.Model(x, layers.Dense(TOKENS)(y))))


@pytest.fixture(scope="module")
def lstm() -> Step:
    return build(layers.LSTM)


@pytest.fixture(scope="module")
def gru() -> Step:
    return build(layers.GRU)


def judged(step: Step, path: Path, names: dict[str, str] | None = None) -> list[Finding]:
    candidate = foreign_candidate(path, step.spec, names or {}, PROFILES["float32"])
    return judge_all(step, [candidate], steps=96, seeds=1)


def first_failure(step: Step, path: Path, names: dict[str, str] | None = None) -> str:
    return next(f.failure for f in judged(step, path, names) if not f.passed)


def test_states_that_are_swapped(lstm: Step, tmp_path: Path) -> None:
    onnx_writer.write(lstm, tmp_path / "theirs.onnx")
    words = "it looks as if h and c are swapped (see --map, or it pairs states by their order): "
    for swapped in ({"h": "c", "c": "h"}, {"next_h": "next_c", "next_c": "next_h"}):
        assert first_failure(lstm, tmp_path / "theirs.onnx", swapped).startswith(words)
    both = {"h": "c", "c": "h", "next_h": "next_c", "next_c": "next_h"}
    words = "it looks as if h and c have each other's names, in and out (see --map): "
    assert first_failure(lstm, tmp_path / "theirs.onnx", both).startswith(words)
    assert not [f for f in judged(lstm, tmp_path / "theirs.onnx") if not f.passed]


def stepped_wrongly(step: Step, wrong: Callable[[Any, Any], Any]) -> Step:
    """A step whose call makes a mistake with what it is given."""
    return replace(step, call=lambda tensors: wrong(step.call, tensors))


def zeroed(call: Any, tensors: Any) -> Any:
    return call({n: t if n == "x" else t * 0.0 for n, t in tensors.items()})


def shifted(by: int) -> Callable[[Any, Any], Any]:
    return lambda call, tensors: call(tensors | {"x": (tensors["x"] + by) % TOKENS})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (zeroed, "it looks as if its states are zero at every step: "),
        (shifted(1), "it looks as if its tokens are shifted by 1: "),
        (shifted(-1), "it looks as if its tokens are shifted by -1: "),
    ],
)
def test_a_step_that_is_called_wrongly(
    lstm: Step, tmp_path: Path, wrong: Callable[[Any, Any], Any], words: str
) -> None:
    onnx_writer.write(stepped_wrongly(lstm, wrong), tmp_path / "theirs.onnx")
    assert first_failure(lstm, tmp_path / "theirs.onnx").startswith(words)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("lstm", "its gates stand as i o f c where the model has i f c o"),
        ("lstm", "its recurrent matrices are transposed"),
        ("lstm", f"it has lost a bias of {4 * UNITS} elements"),
        ("lstm", f"it has lost a bias of {TOKENS} elements"),
        ("lstm", "its epsilon is 1e-05"),
        ("gru", "its gates stand as r z h where the model has z r h"),
    ],
)
def test_weights_that_another_framework_has_otherwise(
    request: pytest.FixtureRequest, tmp_path: Path, cell: str, words: str
) -> None:
    """The graph is written with the mistake in its weights, and the check finds which."""
    step: Step = request.getfixturevalue(cell)
    changes = [change for told, change in _changes(step) if told == words]
    from steprnn.export.formats import frozen

    original = frozen._freeze

    def mistaken(step: Step, precision: str, change: Any = None, edit: Any = None) -> Any:
        return original(step, precision, changes[0])

    frozen._freeze = mistaken
    try:
        onnx_writer.write(step, tmp_path / "theirs.onnx")
    finally:
        frozen._freeze = original
    assert first_failure(step, tmp_path / "theirs.onnx").startswith(f"it looks as if {words}: ")


def test_a_mistake_that_is_none_of_these_is_not_guessed(lstm: Step, tmp_path: Path) -> None:
    other = build(layers.LSTM)
    assert other.spec == lstm.spec

    def louder(call: Any, tensors: Any) -> Any:
        results = call(tensors)
        return results | {"y": results["y"] * 1.01}

    onnx_writer.write(stepped_wrongly(lstm, louder), tmp_path / "theirs.onnx")
    assert not first_failure(lstm, tmp_path / "theirs.onnx").startswith("it looks as if")


def gated(**options: Any) -> Step:
    """A GRU and an LSTM, built the same but for what is said."""
    keras.utils.set_random_seed(0)
    x = keras.Input((None,), dtype="int32")
    gate = {k: v for k, v in options.items() if k == "recurrent_activation"}
    y = layers.LSTM(UNITS, return_sequences=True, name="first", **gate)(layers.Embedding(TOKENS, 5)(x))
    y = layers.GRU(UNITS, return_sequences=True, name="second", **options)(y)
    return derive(shaken(keras.Model(x, layers.Dense(TOKENS)(y))))


def old_hard_sigmoid(x: Any) -> Any:
    return keras.ops.clip(0.2 * x + 0.5, 0, 1)


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ("sigmoid", old_hard_sigmoid, "its gates are the hard sigmoid of Keras 2, clip(0.2 x + 0.5)"),
        ("sigmoid", "hard_sigmoid", "its gates are the hard sigmoid of Keras 3, relu6(x + 3) / 6"),
        ("hard_sigmoid", old_hard_sigmoid, "its gates are the hard sigmoid of Keras 2, clip(0.2 x + 0.5)"),
        ("hard_sigmoid", "sigmoid", "its gates are sigmoids"),
    ],
)
def test_another_function_in_the_gates(ours: Any, theirs: Any, words: str, tmp_path: Path) -> None:
    onnx_writer.write(gated(recurrent_activation=theirs), tmp_path / "theirs.onnx")
    assert first_failure(gated(recurrent_activation=ours), tmp_path / "theirs.onnx").startswith(
        f"it looks as if {words}: "
    )


@pytest.mark.parametrize("after", [True, False])
def test_a_reset_on_the_other_side_of_the_product(after: bool, tmp_path: Path) -> None:
    """Without biases, which have another shape in a GRU of the other kind."""
    step, other = (gated(reset_after=mode, use_bias=False) for mode in (after, not after))
    onnx_writer.write(other, tmp_path / "theirs.onnx")
    assert first_failure(step, tmp_path / "theirs.onnx").startswith(
        "it looks as if its GRU resets the other way (reset_after): "
    )
