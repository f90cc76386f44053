"""A folder for the Hugging Face Hub: the bundle, and a model card as its conventions want it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..atomic import new_folder
from ..bundle.manifest import Manifest
from ..bundle.packed import Place
from ..engines import ENGINES
from ..errors import UsageError
from ..files import MANIFEST
from .card import card
from .contents import write_contents
from .licence import read_licence

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def default_out(bundle: Path) -> Path:
    """Where the folder goes if nobody says."""
    return Path("hub")


def write(bundle: Place, out: Path, *, name: str | None = None, license: str | None = None) -> Path:
    """Write the folder `out`, whole or not at all; one of the kind that is there is replaced.

    `name` is OWNER/NAME of the repository; `license` an SPDX expression or the path of a file. Raises
    `UsageError` where either cannot be meant or something else is at `out`, and `BundleError` where the
    bundle is damaged.
    """
    if name is None or not NAME.fullmatch(name):
        raise UsageError(f"--name is {name}; expected OWNER/NAME of the repository, such as me/lyrics-lstm")
    if out.exists() and not (out.is_dir() and ((out / MANIFEST).is_file() or not any(out.iterdir()))):
        raise UsageError(f"{out} exists and is not such a folder; choose another --out, nothing was changed")
    text, expression = read_licence(license)
    with new_folder(out) as folder:
        manifest = write_contents(bundle, folder, ENGINES.values())
        engine = next(e for e, f in ENGINES.items() if any(a.format == f for a in manifest.artefacts))
        told = expression or (f"In the file {Path(str(license)).name}" if text else None)
        install = f"pip install 'steprnn[{engine},hub]'"
        written = card(folder, manifest, name, f"hf://{name}", engine, told, install)
        (folder / "README.md").write_text(_head(manifest, text, expression) + written, encoding="utf-8")
        if text:
            (folder / "LICENSE").write_text(text, encoding="utf-8")
    return out


def _head(manifest: Manifest, text: str | None, expression: str | None) -> str:
    """The card's metadata in YAML, of which JSON is a part; see the Hub's page on model cards."""
    formats = sorted({a.format for a in manifest.artefacts})
    fields: dict[str, object] = {"library_name": "steprnn", "tags": ["rnn", "keras", *formats]}
    if expression:
        fields["license"] = expression.lower()
    elif text:
        fields |= {"license": "other", "license_name": "see-license", "license_link": "LICENSE"}
    if manifest.writes_text:
        fields["pipeline_tag"] = "text-generation"
    lines = (f"{key}: {json.dumps(value)}" for key, value in fields.items())
    return "\n".join(["---", *lines, "---", "", ""])
