"""Every supported layer: proved, written in all three formats, and stepped against Keras itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tf2onnx")

import keras

from ..models import (
    ACTIVATIONS,
    CASES,
    Case,
    activations,
    derived,
    drawn,
    same_as_keras,
    shaken,
    with_initial_states,
)

# A convolution drops the mask of its input, and Keras says so each time.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
STEPS = 9


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_supported(case: Case, tmp_path: Path) -> None:
    model = shaken(case.build())
    step, steppers = derived(model, tmp_path)
    assert " ".join(t.name for t in step.spec.states) == case.states
    assert step.mask_value == case.mask_value
    rows = model.inputs[0].shape[0] or 3
    inputs = drawn(step, model.inputs[0].shape[1] or STEPS, rows, case.mask_value)
    # Keras computes this one in 16 bits, the step in 32.
    atol = 4e-3 if case.name == "mixed_float16" else 1e-5
    same_as_keras(model, step, steppers, inputs, atol=atol)


@pytest.mark.parametrize("part", range(3))
def test_every_activation_in_a_cell_and_in_a_layer(part: int, tmp_path: Path) -> None:
    names = ACTIVATIONS[part::3]
    assert 8 <= len(names) <= 14, "dir(keras.activations) no longer lists them"
    model = activations(names)
    step, steppers = derived(model, tmp_path)
    assert [t.name for t in step.spec.outputs] == [f"y_{name}" for name in names]
    same_as_keras(model, step, steppers, drawn(step, STEPS, 3))


@pytest.mark.parametrize("masked", [False, True])
def test_initial_states_that_are_inputs(masked: bool, tmp_path: Path) -> None:
    """They are the states of the step already; the caller gives them at the first step."""
    model = shaken(with_initial_states(masked))
    step, steppers = derived(model, tmp_path)
    assert [t.name for t in step.spec.inputs] == ["x"]
    assert [t.name for t in step.spec.states] == ["h", "c", "last"][: 2 + masked]
    inputs = drawn(step, STEPS, 3, 0.0)
    if masked:
        inputs["x"][0] = 0
    h, c = (np.random.default_rng(i).standard_normal((3, 3)).astype(np.float32) for i in range(2))
    same_as_keras(model, step, steppers, inputs, {"h": h, "c": c}, [h, c])


def test_a_stateful_model_keeps_its_own_state(tmp_path: Path) -> None:
    """Proving it runs it on sequences of its own, and leaves no trace."""
    model = next(c for c in CASES if c.name == "stateful_of_fixed_batch").build()
    model(np.ones((7, 3, 4), np.float32))
    before = [keras.ops.convert_to_numpy(s) for s in model.layers[0].states]
    derived(model, tmp_path)
    for old, new in zip(before, model.layers[0].states, strict=True):
        assert old.any()
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(new))


def test_constants_of_the_beginning_belong_to_the_step(tmp_path: Path) -> None:
    model = next(c for c in CASES if c.name == "begins_from_constants").build()
    step, _ = derived(model, tmp_path)
    assert {n: a.tolist() for n, a in step.initial.items()} == {"h": [0.5] * 3, "c": [-2.0] * 3}
