"""`steprnn demo`: the whole way on the embedded lyrics, ending in a table."""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
from pathlib import Path

from .. import cli
from ..bundle.manifest import Manifest
from ..engines import ENGINE_OF
from ..errors import BundleError
from ..files import PARITY, PARITY_FORMAT, read_record
from ..loading import load
from ..markdown import table
from ..model import Model
from ..quiet import quiet

HELP = "train, export, check and generate on the embedded lyrics, in about a minute"
EXAMPLE = "  steprnn demo --out demo"
NEEDS = {
    "tensorflow": "all",
    "matplotlib": "all",
    "tf2onnx": "all",
    "onnxruntime": "all",
    "ai_edge_litert": "all",
}
PROMPT, LENGTH = "分开", 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="folder for the checkpoint and the bundle"
    )
    parser.add_argument("--epochs", type=int, default=60, metavar="N", help="epochs of training")


def run(arguments: argparse.Namespace) -> int:
    """Call the commands in turn, as a person would; the exit code of the first that fails."""
    checkpoint, bundle = arguments.out / "lyrics.checkpoint", arguments.out / "lyrics.bundle"
    for argv in (
        ["train", "--out", str(checkpoint), "--epochs", str(arguments.epochs)],
        ["export", str(checkpoint), "--out", str(bundle)],
        ["check", str(bundle)],
    ):
        sys.stderr.write(f"\n$ steprnn {shlex.join(argv)}\n")
        if code := cli.main(argv):
            return code
    sys.stdout.write("\n" + "\n".join(summary(bundle)) + "\n")
    sys.stderr.write(f"\nnext: steprnn generate {shlex.quote(str(bundle))} -p {PROMPT} --temp 0.8\n")
    return 0


def summary(folder: Path) -> list[str]:
    """A row for each artefact: its size, its parity, its speed here, and a line of its text."""
    manifest = Manifest.read(folder)
    parity = read_record(folder / PARITY, PARITY_FORMAT, BundleError, "export again")
    runs = [finding for finding in parity["findings"] if finding["level"] == "chained"]
    judged = {run["candidate"].partition(" in ")[0]: run for run in runs}
    head = ["artefact", "bytes", "error, of its limit", "same-top-1", "us a character", "greedy text"]
    rows = []
    for artefact in manifest.artefacts:
        run = judged[artefact.name]
        speed, text = "", "(runs in TensorFlow)"
        if artefact.format in ENGINE_OF:
            with quiet():
                model = load(folder, engine=ENGINE_OF[artefact.format], variant=artefact.variant)
            text = model.generate(PROMPT, LENGTH)
            speed = f"{microseconds(model):.1f}"
        size, same = f"{manifest.size_of(artefact):,}", f"{run['figures']['same_top_1']:.2%}"
        rows.append([artefact.name, size, run["summary"], same, speed, text])
    return table(head, rows, words=(0, 5))


def microseconds(model: Model, length: int = 2000, repeats: int = 7) -> float:
    """Median microseconds a character, greedy, after one call to warm up."""
    model.generate(PROMPT, length)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        model.generate(PROMPT, length)
        times.append(time.perf_counter() - started)
    return statistics.median(times) / length * 1e6
