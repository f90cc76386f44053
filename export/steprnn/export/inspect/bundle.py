"""Reading bundles: the manifest with the runtime alone, and each graph with the package that reads it."""

from __future__ import annotations

from steprnn.runtime import engines
from steprnn.runtime.bundle.manifest import Artefact, Manifest
from steprnn.runtime.bundle.packed import Place
from steprnn.runtime.errors import MissingExtra, UsageError
from steprnn.runtime.loading import choose
from steprnn.runtime.pairing import Declared, Pair
from steprnn.runtime.spec import TensorSpec

from . import inspect
from .report import Inspection


def read(path: Place, trust: bool = False) -> Inspection:
    """Inspect a bundle folder; raises `BundleError` where it, or one of its graphs, is damaged."""
    manifest = Manifest.read(path)
    spec = manifest.step
    inputs = tuple(_declared(t) for t in (*spec.inputs, *spec.states))
    nexts = tuple(TensorSpec(spec.next_of(t), t.dtype, t.shape) for t in spec.states)
    outputs = tuple(_declared(t) for t in (*spec.outputs, *nexts))
    pairs = tuple(Pair(t.name, spec.next_of(t), "the manifest") for t in spec.states)
    parts, notes = [], [_chosen(manifest)]
    starts = manifest.start.artefacts if manifest.start else ()
    if manifest.start:
        static = ", ".join(t.name for t in manifest.start.spec.inputs)
        begun = ", ".join(t.name for t in manifest.start.spec.outputs)
        notes.append(f"a stream begins with {begun} as the start graphs compute them from {static}")
    for artefact in (*manifest.artefacts, *starts):
        manifest.verify(path, manifest.files_of(artefact))
        notes.append(f"{artefact.name}: {manifest.size_of(artefact):,} bytes, {artefact.method}")
        try:
            parts.append(inspect(path / artefact.path))
        except MissingExtra as error:
            notes.append(f"{artefact.name} was not read: {error}")
        else:
            if artefact not in starts:
                notes += _differences(artefact, parts[-1], inputs, outputs)
    maker = f"model {manifest.model[:12]}, made from {manifest.about.get('source', 'an unnamed source')}"
    return Inspection(
        str(path), "bundle", maker, inputs, outputs, pairs, {}, None, (), tuple(notes), tuple(parts)
    )


def _declared(spec: TensorSpec) -> Declared:
    return Declared(spec.name, spec.dtype, ("batch", *spec.shape))


def _chosen(manifest: Manifest) -> str:
    """Which graph `load` takes by default, and why."""
    try:
        engine, artefact = choose(manifest, "auto", "auto")
    except (MissingExtra, UsageError) as error:
        return f"load takes none of them: {error}"
    reasons = []
    for name in engines.ENGINES:
        if name == engine:
            break
        held = manifest.artefact(engines.ENGINES[name], artefact.variant) is not None
        lacks = "is not installed" if held else f"has no {artefact.variant} graph here"
        reasons.append(f"{name} {lacks}")
    preferred = " and ".join([*reasons, f"{engine} comes next"]) if reasons else f"{engine} comes first"
    return f"load takes {artefact.name} on {engine}: the most exact unless told otherwise; {preferred}"


def _differences(
    artefact: Artefact, part: Inspection, inputs: tuple[Declared, ...], outputs: tuple[Declared, ...]
) -> list[str]:
    """Where a graph's names are not the manifest's."""
    expected = {t.name for t in inputs}, {t.name for t in outputs}
    got = {t.name for t in part.inputs}, {t.name for t in part.outputs}
    if got == expected:
        return []
    return [f"{artefact.name} has the names {sorted(got[0] | got[1])}, which are not the manifest's"]
