"""A bundle as a folder of static files: a page that runs the model in the browser, and the module it uses."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from ..atomic import new_folder, write_text
from ..bundle.manifest import Artefact, Manifest
from ..bundle.packed import Place
from ..errors import UsageError
from ..files import INITIAL, MANIFEST, VOCABULARY
from .ort import VERSION, engine_files

SITE = Path(__file__).parent / "site"
LEFT_OUT = ("sw.js", "NOTICE", "steprnn.d.ts", "package.json")  # of what is kept: no visitor fetches them
NOTICE = f"""\
ort/ holds ONNX Runtime Web {VERSION}, Copyright (c) Microsoft Corporation, MIT License.
The other scripts are of steprnn, Apache-2.0. The licence of model/ is its maker's.
"""


def default_out(bundle: Path) -> Path:
    """Where the page goes if nobody says."""
    return Path("site")


def write(bundle: Place, out: Path, *, variant: str = "float32", ort: Path | None = None) -> Path:
    """Write the page of a bundle to `out`, whole or not at all; a page that is there is replaced.

    `variant` is that of the ONNX graph, such as "int8-weights"; `ort` a node_modules folder with
    onnxruntime-web, which npm fetches otherwise. Raises `UsageError` where the bundle has no such graph or
    is not of a language model, or where something else is at `out`; `BundleError` where a file is damaged.
    """
    if out.exists() and not (out.is_dir() and ((out / "steprnn.js").is_file() or not any(out.iterdir()))):
        raise UsageError(f"{out} exists and is not a page; choose another --out, nothing was changed")
    manifest = Manifest.read(bundle)
    if not manifest.writes_text or VOCABULARY not in manifest.files:
        raise UsageError(
            f"{bundle} is not of a language model; expected one with a {VOCABULARY}, to write text"
        )
    artefact = graph_of(bundle, manifest, variant)
    engine = engine_files(ort)
    with new_folder(out) as folder:
        for source in SITE.iterdir():
            shutil.copyfile(source, folder / source.name)
        page = folder / "index.html"
        marked = 'data-variant="float32"'
        write_text(page, page.read_text(encoding="utf-8").replace(marked, f'data-variant="{variant}"'))
        (folder / "NOTICE").write_text(NOTICE, encoding="utf-8")
        copy_graph(bundle, manifest, artefact, folder / "model")
        (folder / "ort").mkdir()
        for name, data in engine.items():
            (folder / "ort" / name).write_bytes(data)
        _keep(folder)
    return out


def _keep(folder: Path) -> None:
    """Write into sw.js which files it keeps for when there is no network, and of which version."""
    digest, names = hashlib.sha256(), []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in LEFT_OUT):
        names.append(path.relative_to(folder).as_posix())
        digest.update(f"{names[-1]}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    worker = folder / "sw.js"
    text = worker.read_text(encoding="utf-8")
    text = text.replace('const VERSION = "";', f'const VERSION = "{digest.hexdigest()[:16]}";')
    text = text.replace("const FILES = [];", f"const FILES = {json.dumps(['./', *names])};")
    write_text(worker, text)


def graph_of(bundle: Place, manifest: Manifest, variant: str) -> Artefact:
    """The graph that a browser runs; raises `UsageError` where the bundle has none of this variant."""
    artefact = manifest.artefact("onnx", variant)
    if artefact is None:
        held = ", ".join(a.name for a in manifest.artefacts)
        quantize = "none" if variant == "float32" else variant
        raise UsageError(
            f"{bundle} has no {variant} graph in ONNX, which browsers run; it holds {held}; "
            f"choose another --variant, or export with --formats onnx --quantize {quantize}"
        )
    return artefact


def copy_graph(bundle: Place, manifest: Manifest, artefact: Artefact, folder: Path) -> list[str]:
    """Copy a graph and what it needs; returns the names. Raises `BundleError` where a file is damaged."""
    names = [n for n in (VOCABULARY, INITIAL) if n in manifest.files] + manifest.files_of(artefact)
    manifest.verify(bundle, names)
    for name in (MANIFEST, *names):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((bundle / name).read_bytes())
    return [MANIFEST, *names]
