"""Damaged step programs against the interpreter, under AddressSanitizer and UndefinedBehaviorSanitizer.

    python tests/hostile/programs.py --count 1000000

The seeds are small steps of every operation in each variant. Nothing that a file says may make the
interpreter read or write outside; the first that does ends the run with the sanitizer's report.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.export.program.cases import CASES, TOKENS, step
from tests.export.program.cells import cell_graph

from steprnn.export.program import encoding, fusing, lowering, source
from steprnn.export.program.selftest import with_selftest
from steprnn.runtime.engines.native import library
from steprnn.runtime.spec import StepSpec, TensorSpec

SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fsanitize=float-cast-overflow")


def seeds(folder: Path) -> list[Path]:
    """A program of each case, and of an LSTM and a GRU in each variant."""
    steps = {name: (*step(name), "float32") for name in (*CASES, *TOKENS)}
    for variant in encoding.VARIANTS:
        steps |= {f"{c}-{variant}": (*cell_graph(c, 19, 17), variant) for c in ("lstm", "gru")}
    steps["language"] = (*language(), "float32")
    paths = []
    for name, (model, spec, variant) in steps.items():
        low = lowering.lower(source.read(model), spec)
        block = encoding.program(low, fusing.fused(low.operations), spec, variant, "a seed", {})
        paths.append(folder / f"{name}.program")
        paths[-1].write_bytes(with_selftest(block))
    return paths


def language() -> tuple[onnx.ModelProto, StepSpec]:
    """A step that is a language model of nine tokens, so that it can be read with and written by."""
    generator = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["row"]),
        helper.make_node("Add", ["row", "h"], ["next_h"]),
        helper.make_node("Tanh", ["next_h"], ["y"]),
    ]
    table = numpy_helper.from_array(generator.standard_normal((9, 9)).astype(np.float32), "table")
    given = [helper.make_tensor_value_info("x", TensorProto.INT32, ["batch"])]
    given += [helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", 9])]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 9]) for name in ("y", "next_h")]
    graph = helper.make_graph(nodes, "step", given, made, [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    x, h, y = (
        TensorSpec("x", "int32", (), 9),
        TensorSpec("h", "float32", (9,)),
        TensorSpec("y", "float32", (9,)),
    )
    return model, StepSpec((x,), (h,), (y,))


def build(folder: Path, compiler: str = "cc") -> Path:
    """The harness with the interpreter in it."""
    made = folder / "program"
    command = [compiler, "-std=c99", "-O1", "-g", "-ffp-contract=off", *SANITIZE, f"-I{library.HERE}"]
    here = Path(__file__).with_suffix(".c").with_name("program.c")
    command += ["-o", str(made), str(here), str(library.HERE / library.SOURCE)]
    subprocess.run(command, check=True)
    return made


def main() -> int:
    """Run the harness; its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="programs to make")
    parser.add_argument("--seed", type=int, default=0, help="of the random changes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = seeds(Path(folder))
        harness = build(Path(folder))
        environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=1"}
        command = [str(harness), str(arguments.count), str(arguments.seed), *map(str, paths)]
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
