"""`steprnn check`: replay the golden trajectory of a bundle on this machine's engines."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import engines
from ..errors import BundleError, MissingExtra, UsageError
from ..manifest import Manifest
from ..parity import PROFILES, Reference, chain, measure
from ..quiet import quiet

HELP = "show that a bundle still says what TensorFlow said, on this machine"
EXAMPLE = "  steprnn check lyrics.bundle"
NEEDS: dict[str, str] = {}
GOLDEN = "golden.npz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument("bundle", type=Path, help="folder that `steprnn export` wrote")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads within a step")


def run(arguments: argparse.Namespace) -> int:
    """Verify every file, replay every graph that an installed engine runs; 1 where one fails."""
    folder: Path = arguments.bundle
    manifest = Manifest.read(folder)
    manifest.verify(folder, list(manifest.files))
    reference = Reference.read(folder / GOLDEN)
    names = [t.name for t in manifest.step.inputs], list(manifest.step.result_names)
    if (list(reference.inputs), sorted(reference.results)) != (names[0], sorted(names[1])):
        raise BundleError(f"{folder / GOLDEN} is not a run of this step; export again")
    installed = engines.installed()
    if not installed:
        raise MissingExtra("an engine", "onnx")
    formats = {engines.ENGINES[engine] for engine in installed}
    if not any(a.format in formats for a in manifest.artefacts):
        held = ", ".join(a.name for a in manifest.artefacts)
        raise UsageError(f"nothing to check: {folder} holds {held}, and installed is {', '.join(installed)}")
    failures = []
    sys.stdout.write(f"{'artefact':<18}{'engine':<8}{'units':>9}{'same-top-1':>12}{'mean KL':>10}  verdict\n")
    for engine in installed:
        for artefact in (a for a in manifest.artefacts if a.format == engines.ENGINES[engine]):
            with quiet():
                opened = engines.open_engine(engine, folder / artefact.path, manifest.step, arguments.threads)
                results = chain(opened.runner(1), reference.inputs, manifest.initial_state(folder))
            measures = measure(manifest.step, reference, results, PROFILES[artefact.variant])
            top = "" if measures.same_top_1 is None else f"{measures.same_top_1:.2%}"
            kl = "" if measures.mean_kl is None else f"{abs(measures.mean_kl):.1e}"
            verdict = "passed" if measures.passed else "FAILED"
            sys.stdout.write(
                f"{artefact.name:<18}{engine:<8}{measures.largest:>9.3g}{top:>12}{kl:>10}  {verdict}\n"
            )
            failures += [f"{artefact.name} in {engine}: {failure}" for failure in measures.failures]
    for failure in failures:
        sys.stderr.write(f"steprnn: {failure}\n")
    return 1 if failures else 0
