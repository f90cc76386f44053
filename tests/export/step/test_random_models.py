"""Random causal models: both proofs, and parity in every format; a failure prints the model.

STEPRNN_EXAMPLES=200 draws so many, anew each time; without it a fixed dozen is drawn.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("keras")
pytest.importorskip("tf2onnx")

import keras
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from keras import layers, ops

from ..models import TOKENS, Leaky, derived, drawn, same_as_keras, shaken

# A convolution drops the mask of its input, and Keras says so each time.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
EXAMPLES = int(os.environ.get("STEPRNN_EXAMPLES", "0"))
ACTIVATIONS = ("tanh", "sigmoid", "relu", "softsign", "elu", "hard_sigmoid", "silu", "gelu")

# A model is drawn as data, so that a failure prints as one line and can be built again.
WIDTHS = st.integers(1, 6)
CELLS = st.fixed_dictionaries(
    {
        "cell": st.sampled_from(["LSTM", "GRU", "SimpleRNN"]),
        "units": WIDTHS,
        "use_bias": st.booleans(),
        "activation": st.sampled_from(["tanh", "sigmoid", "softsign", "hard_sigmoid"]),
        "unroll": st.just(False),
        "dropout": st.sampled_from([0.0, 0.3]),
    }
)
BLOCKS = st.one_of(
    CELLS.map(lambda options: ("recurrent", options)),
    st.tuples(st.just("gru before reset"), WIDTHS),
    st.tuples(
        st.just("stack"),
        # Keras itself does not run a masked RNN of a list of one cell.
        st.lists(st.tuples(st.sampled_from(["LSTM", "GRU"]), WIDTHS), min_size=2, max_size=3),
    ),
    st.tuples(st.just("leaky"), WIDTHS),
    st.tuples(st.just("conv"), st.tuples(WIDTHS, st.integers(1, 4), st.integers(1, 3), st.booleans())),
    st.tuples(st.just("dense"), st.tuples(WIDTHS, st.sampled_from(ACTIVATIONS))),
    st.tuples(
        st.just("norm"), st.sampled_from(["LayerNormalization", "BatchNormalization", "RMSNormalization"])
    ),
    st.tuples(st.just("skip"), st.sampled_from(["concatenate", "add", "multiply"])),
    st.tuples(st.just("dropout"), st.floats(0.1, 0.5)),
)
MODELS = st.fixed_dictionaries(
    {
        "input": st.sampled_from(["signal", "embedding", "masked embedding", "one-hot", "masked signal"]),
        "blocks": st.lists(BLOCKS, min_size=1, max_size=4),
        "memory": CELLS,
        "last": st.booleans(),
        "head": st.sampled_from(["dense", "two", "none"]),
    }
)


def block(kind: str, options: Any, x: Any, before: Any) -> Any:
    """One block of the drawn model; `before` is the input of the block before, for a skip."""
    match kind:
        case "recurrent":
            return recurrent(options, x, True)
        case "gru before reset":
            return layers.GRU(options, reset_after=False, return_sequences=True)(x)
        case "stack":
            cells = [getattr(layers, f"{name}Cell")(units) for name, units in options]
            return layers.RNN(cells, return_sequences=True)(x)
        case "leaky":
            return layers.RNN(Leaky(options), return_sequences=True)(x)
        case "conv":
            width, kernel, dilation, left = options
            if not left:
                return layers.Conv1D(width, kernel, padding="causal", dilation_rate=dilation)(x)
            reach = (kernel - 1) * dilation
            x = layers.ZeroPadding1D((reach, 0))(x) if reach else x
            return layers.DepthwiseConv1D(kernel, dilation_rate=dilation)(x)
        case "dense":
            return layers.Dense(options[0], activation=options[1])(x)
        case "norm":
            return getattr(layers, options)()(x)
        case "dropout":
            return layers.Dropout(options)(x)
    if options == "concatenate":
        return layers.Concatenate()([x, before])
    same = layers.Dense(x.shape[-1])(before)
    return layers.Add()([x, same]) if options == "add" else x * ops.sigmoid(same)


def recurrent(options: dict[str, Any], x: Any, sequences: bool) -> Any:
    rest = {k: v for k, v in options.items() if k != "cell"}
    return getattr(layers, options["cell"])(return_sequences=sequences, **rest)(x)


def build(description: dict[str, Any]) -> keras.Model:
    kind = description["input"]
    if "signal" in kind:
        i = keras.Input((None, 3))
        x = layers.Masking(0.5)(i) if "masked" in kind else i
    else:
        i = keras.Input((None,), dtype="int32")
        x = (
            ops.one_hot(i, TOKENS)
            if kind == "one-hot"
            else layers.Embedding(TOKENS, 4, mask_zero="masked" in kind)(i)
        )
    before = x
    for name, options in description["blocks"]:
        before, x = x, block(name, options, x, before)
    x = recurrent(description["memory"], x, not description["last"])
    match description["head"]:
        case "dense":
            return keras.Model(i, layers.Dense(TOKENS)(x))
        case "two":
            return keras.Model(i, [layers.Dense(2, name="a")(x), layers.Dense(3, "tanh", name="b")(x)])
    return keras.Model(i, x)


@settings(
    max_examples=EXAMPLES or 12,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink) if EXAMPLES else (Phase.generate,),  # shrinking takes minutes
)
@given(MODELS)
def test_a_random_causal_model_has_a_step(description: dict[str, Any]) -> None:
    note(f"model: {description}")
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    model = shaken(build(description))
    with tempfile.TemporaryDirectory() as folder:
        step, steppers = derived(model, Path(folder))
        same_as_keras(model, step, steppers, drawn(step, 7, 2, step.mask_value), atol=2e-5)
    assert any(t.shape == (description["memory"]["units"],) for t in step.spec.states)
