"""What of a bundle goes into a package: all of it, or the graphs of some formats with what they need."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from ..bundle.manifest import Manifest
from ..bundle.packed import Place
from ..errors import UsageError
from ..files import MANIFEST


def write_contents(bundle: Place, folder: Path, formats: Collection[str]) -> Manifest:
    """Copy the bundle to `folder`, with the graphs of these formats only; returns its new manifest.

    Every file is compared with its record first, whether it is kept or not. Raises `BundleError` where
    one is damaged, and `UsageError` where no graph would be left.
    """
    manifest = Manifest.read(bundle)
    manifest.verify(bundle, list(manifest.files))
    kept = tuple(a for a in manifest.artefacts if a.format in formats)
    start = manifest.start
    begun = tuple(a for a in (start.artefacts if start else ()) if a.format in formats)
    if not kept:
        held = ", ".join(a.name for a in manifest.artefacts)
        raise UsageError(f"{bundle} has no graph in {' or '.join(sorted(formats))}; it holds {held}")
    every = (*manifest.artefacts, *(start.artefacts if start else ()))
    dropped = {n for a in every if a not in (*kept, *begun) for n in manifest.files_of(a)}
    files = {name: record for name, record in manifest.files.items() if name not in dropped}
    for name in files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((bundle / name).read_bytes())
    if len(kept) == len(manifest.artefacts):
        (folder / MANIFEST).write_bytes((bundle / MANIFEST).read_bytes())
        return manifest
    reads = {a.name: manifest.read_bytes[a.name] for a in kept if a.name in manifest.read_bytes}
    names = {a.name for a in (*kept, *begun)}
    positions = {name: order for name, order in manifest.positions.items() if name in names}
    start = replace(start, artefacts=begun) if start else None
    chosen = replace(
        manifest,
        artefacts=kept,
        files=files,
        read_bytes=reads,
        start=start,
        positions=positions,
        scales={name: scales for name, scales in manifest.scales.items() if name in names},
    )
    chosen.write(folder)
    return chosen


def stem(bundle: Path) -> str:
    """The bundle's name without `.bundle` or `.zip`."""
    return bundle.absolute().name.removesuffix(".zip").removesuffix(".bundle")
