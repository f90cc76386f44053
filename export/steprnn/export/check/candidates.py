"""What is judged of a path: the artefacts of a bundle, or the graph of another tool."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

from steprnn.runtime import engines
from steprnn.runtime.bundle.manifest import Artefact, Manifest
from steprnn.runtime.engines import open_engine
from steprnn.runtime.errors import ExportError, UsageError
from steprnn.runtime.files import MANIFEST
from steprnn.runtime.parity.findings import BUNDLE, Finding, Level
from steprnn.runtime.parity.levels import Candidate
from steprnn.runtime.parity.profiles import PROFILES
from steprnn.runtime.spec import StepSpec

from ..formats import operators, saved_model
from ..step.contract import Step
from .functions import FunctionEngine
from .structure import strange_file, strange_tensors


def candidates_of(
    path: Path, step: Step, names: dict[str, str], profile: str | None
) -> tuple[list[Finding], list[Candidate]]:
    """The artefacts of a bundle, or a graph of another tool, to be judged; and what a bundle itself is."""
    if (path / MANIFEST).is_file():
        if names:
            raise UsageError("--map is for the graphs of other tools; a bundle tells its own names")
        manifest = Manifest.read(path)
        manifest.verify(path, list(manifest.files))
        artefacts = manifest.artefacts
        candidates = [artefact_candidate(path / a.path, a, manifest.step, profile) for a in artefacts]
        if manifest.start is not None:
            spec = manifest.start.spec
            candidates += [artefact_candidate(path / a.path, a, spec) for a in manifest.start.artefacts]
        same = same_contract(manifest, step)
        return [same], candidates if same.passed else []
    from .renamed import foreign_candidate

    return [], [foreign_candidate(path, step.spec, names, PROFILES[profile or "float32"])]


def same_contract(manifest: Manifest, step: Step) -> Finding:
    """Whether the bundle's step has the names, shapes and dtypes of the reference's."""
    pairs = [("its ", manifest.step, step.spec)]
    if manifest.start or step.start:
        none = StepSpec((), (), ())
        start, own = manifest.start.spec if manifest.start else none, step.start.spec if step.start else none
        pairs.append(("its start's ", start, own))
    differences = [
        f"{whose}{part} are {_in_words(got)}, expected {_in_words(expected)}: another model"
        for whose, spec, own_spec in pairs
        for part, expected in own_spec.to_record().items()
        if (got := spec.to_record()[part]) != expected
    ]
    summary = f"{len(manifest.files)} files as listed"
    return Finding(Level.STRUCTURE, BUNDLE, not differences, summary, "; ".join(differences))


def _in_words(part: Any) -> str:
    """The tensors of a step's record."""
    if not isinstance(part, list):
        return str(part)
    tokens = [f" of {t['tokens']} tokens" if "tokens" in t else "" for t in part]
    told = [f"{t['name']} {t['dtype']} {t['shape']}{n}" for t, n in zip(part, tokens, strict=True)]
    return ", ".join(told) or "none"


def artefact_candidate(
    path: Path, artefact: Artefact, spec: StepSpec, profile: str | None = None
) -> Candidate:
    """One artefact as a candidate, judged by the profile of its variant unless another is named."""
    judged = PROFILES[profile or artefact.variant]
    if artefact.format == "saved_model":
        loaded = cache(partial(saved_model.signature, path))
        return Candidate(
            artefact.name,
            "tensorflow",
            spec,
            judged,
            # TensorFlow's threads are the process's.
            cache(lambda threads: FunctionEngine(loaded(), spec)),
            wide=True,
            look=lambda: _strange_saved_model(loaded(), spec),
            path=path,
        )
    name = engines.ENGINE_OF[artefact.format]
    return Candidate(
        artefact.name,
        name,
        spec,
        judged,
        partial(open_engine, name, path, spec),
        look=partial(strange_file, name, path, spec),
        path=path,
    )


def _strange_saved_model(function: Any, spec: StepSpec) -> list[str]:
    problems = strange_tensors(*saved_model.declared(function), spec)
    try:
        operators.check_tensorflow(function.graph.as_graph_def())
    except ExportError as error:
        problems.append(str(error))
    return problems
