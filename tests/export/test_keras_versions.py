"""The one place that leans on Keras's private names, and the versions of Keras it was really run on.

Each version is installed beside the environment, without dependencies, and put first on the path of a
process of its own. By default the oldest alone, as all other tests run on the newest; STEPRNN_KERAS=all runs
every one:

    STEPRNN_KERAS=all pytest tests/export/test_keras_versions.py -s
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras")

import keras

import steprnn.export

EXPORT = Path(steprnn.export.__file__).parent
TRIED = ("3.10.0", "3.11.3", "3.12.4", "3.13.2", "3.14.1", keras.__version__)
RUN = TRIED if os.environ.get("STEPRNN_KERAS") == "all" else TRIED[:1]

# Derive and prove one model of each kind, and refuse one that is not causal.
SCRIPT = """
import sys
import keras
import numpy as np
from keras import layers, ops
from steprnn.export.step.derive import derive
from steprnn.export.check.proofs import prove
from steprnn.runtime.errors import ExportError

assert keras.__version__ == sys.argv[1], (keras.__version__, keras.__file__)

def residual():
    x = keras.Input((None, 4))
    y = layers.Conv1D(4, 2, padding="causal", dilation_rate=2)(x)
    y = layers.Add()([layers.LSTM(4, return_sequences=True)(y), x])
    y = layers.LayerNormalization()(y)
    y = layers.RNN([layers.GRUCell(3), layers.LSTMCell(4)], return_sequences=True)(y)
    return keras.Model(x, layers.TimeDistributed(layers.Dense(2))(y))

def nested():
    inner = keras.Sequential([layers.Input((None, 4)), layers.LSTM(4, return_sequences=True)])
    x = keras.Input((None,), dtype="int32")
    return keras.Model(x, layers.Dense(5)(inner(inner(layers.Embedding(5, 4, mask_zero=True)(x)))))

def masked():
    return keras.Sequential([layers.Input((None, 4)), layers.Masking(), layers.GRU(4, return_sequences=True),
                             layers.SimpleRNN(3, dropout=0.2)])

def stateful():
    return keras.Sequential([layers.Input((None, 4), batch_size=5), layers.LSTM(3, stateful=True)])

def given():
    x, h = keras.Input((None, 4)), keras.Input((3,))
    return keras.Model([x, h], layers.GRU(3, return_sequences=True)(x, initial_state=h))

def one_hot():
    x = keras.Input((None,), dtype="int32")
    return keras.Model(x, layers.Dense(7)(layers.LSTM(3, return_sequences=True)(ops.one_hot(x, 7))))

for build in (residual, nested, masked, stateful, given, one_hot):
    step = derive(build())
    proofs = prove(step)
    assert proofs.transform <= 8, (build, proofs)
    print(build.__name__, [s.name for s in step.spec.states], f"{proofs.transform:.2g} units")

x = keras.Input((None, 4))
for model, words in (
    (keras.Model(x, ops.cumsum(layers.LSTM(3, return_sequences=True)(x), axis=1)), "reads other time steps"),
    (keras.Model(x, layers.Bidirectional(layers.LSTM(3))(x)), "reads the sequence from both ends"),
):
    try:
        prove(derive(model))
    except ExportError as error:
        assert words in str(error), error
    else:
        raise AssertionError("not refused")
"""


@pytest.mark.parametrize("version", RUN)
def test_the_derivation_runs_on(version: str, tmp_path: Path) -> None:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if version != keras.__version__:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path)]
        installed = subprocess.run([*pip, f"keras=={version}"], capture_output=True, text=True, check=False)
        if installed.returncode:
            pytest.skip(f"keras {version} cannot be installed here: {installed.stderr.strip()[-200:]}")
        environment["PYTHONPATH"] = str(tmp_path)
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, version],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.count(" units\n") == 6
    sys.stdout.write(f"keras {version}: six models derived and proved, two refused\n")


PRIVATE = {"_run_through_graph", "_functional"}


def private_names(path: Path) -> set[str]:
    """The private names of the walk that a module reads, as attributes or in strings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attributes = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return (attributes | strings) & PRIVATE


def test_the_private_walk_stands_in_one_place() -> None:
    found = {path.name: private_names(path) for path in EXPORT.rglob("*.py")}
    assert {name for name, names in found.items() if names} == {"graph.py"}
    assert found["graph.py"] == PRIVATE
    functions = {
        function.name
        for function in ast.walk(ast.parse((EXPORT / "step" / "graph.py").read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE
    }
    assert functions == {"functional_graph", "walk", "run"}  # run is within walk


def test_a_keras_without_the_walk_is_refused_and_not_misread(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.ops.function import Function

    from steprnn.export.step.derive import derive
    from steprnn.runtime.errors import ExportError

    model = keras.Sequential([keras.layers.Input((None, 4)), keras.layers.LSTM(3)])
    monkeypatch.delattr(Function, "_run_through_graph")
    with pytest.raises(ExportError, match="has no graph to read"):
        derive(model)
