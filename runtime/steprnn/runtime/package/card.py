"""The model card: what a model is, how its graphs were judged, and how to use it, in Markdown."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..bundle.manifest import Artefact, Manifest
from ..bundle.vocabulary import Vocabulary
from ..errors import BundleError
from ..files import PARITY, PARITY_FORMAT, VOCABULARY, read_record
from ..markdown import table


def summary(manifest: Manifest) -> str:
    """What the model is, in one line."""
    spec = manifest.step
    size = f"{sum(math.prod(t.shape) for t in spec.states):,} numbers of state"
    if spec.is_language_model:
        return f"A recurrent language model of {spec.inputs[0].tokens:,} tokens and {size}"
    return f"A recurrent model of {len(spec.inputs)} input(s) and {size}"


def card(
    folder: Path,
    manifest: Manifest,
    name: str,
    package: str,
    engine: str,
    licence: str | None,
    install: str | None = None,
) -> str:
    """The card of a bundle folder, as the README of `name`, which `load` takes as `package`.

    `install` is the command before that; without it, pip installs `name` itself.
    """
    language = manifest.writes_text
    lines = [
        f"# {name}",
        "",
        f"{summary(manifest)}, as a step graph that was checked against TensorFlow and runs without it, "
        "by steprnn. This package holds data and no program.",
        "",
        "## Use",
        "",
        "```sh",
        install or f"pip install {name}",
        *([f"steprnn generate {package} -p {beginning(folder)} -n 50"] if language else ["steprnn models"]),
        "```",
        "",
        "```python",
        "from steprnn.runtime import load",
        "",
        f'model = load("{package}")',
        *(
            [f'print(model.generate("{beginning(folder)}", length=50, temperature=0.8, seed=7))']
            if language
            else [_session(manifest), f"y = session.step(x)  # {_arguments(manifest)}"]
        ),
        "```",
        "",
        f"It comes with the engine `{engine}` (`steprnn[{engine}]`).",
        "",
        "## Graphs",
        "",
        *_graphs(folder, manifest),
        "",
        "A unit is TensorFlow's own float32 error against the same step in float64; the figures are of the "
        "chained run that was judged when the graph was written. `parity.json` in the package has them all, "
        "and `golden.npz` a recorded run to check them by on another machine.",
        "",
        "## Origin",
        "",
        *_origin(manifest),
        "",
        "## Licence",
        "",
        f"{licence}."
        if licence
        else "None was stated. Ask whoever gave you this package before you pass it on.",
    ]
    return "\n".join(lines) + "\n"


def beginning(folder: Path) -> str:
    """A character to begin with: a letter of the script that most of the vocabulary is in."""
    tokens = Vocabulary.read(folder / VOCABULARY).characters
    letters = [token for token in tokens if token.isalpha()] or tokens
    return letters[len(letters) // 2]


def _session(manifest: Manifest) -> str:
    static = ", ".join(f'"{t.name}": {t.name}' for t in manifest.static)
    return f"session = model.session(static={{{static}}})" if static else "session = model.session()"


def _arguments(manifest: Manifest) -> str:
    tensors = (*manifest.step.stepped, *manifest.static)
    return ", ".join(f"{t.name}: {t.dtype} {list(t.shape)}" for t in tensors)


def _graphs(folder: Path, manifest: Manifest) -> list[str]:
    """A row for each graph: its size, and how far it was off when it was written."""
    parity: dict[str, Any] = {}
    if (folder / PARITY).is_file():
        parity = read_record(folder / PARITY, PARITY_FORMAT, BundleError, "export again")
    try:
        return _rows(manifest, parity)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{folder / PARITY} is damaged ({type(error).__name__}: {error}); export again"
        ) from None


def _rows(manifest: Manifest, parity: dict[str, Any]) -> list[str]:
    rows = []
    for artefact in manifest.artefacts:
        runs = _runs(parity, artefact)
        units = max(
            (unit for run in runs for unit in run["units"].values() if unit is not None), default=None
        )
        same = min((run["same_top_1"] for run in runs if run.get("same_top_1") is not None), default=None)
        kl = max((run["mean_kl"] for run in runs if run.get("mean_kl") is not None), default=None)
        rows.append(
            [
                f"{artefact.name}: {artefact.method}",
                f"{manifest.size_of(artefact):,}",
                "" if units is None else f"{units:,.2g}" if units < 100 else f"{units:,.0f}",
                "" if same is None else f"{same:.2%}",
                "" if kl is None else f"{kl:.1g}",
            ]
        )
    head = ["graph", "bytes", "largest error, units", "same likeliest token", "mean KL, nats"]
    return table(head, rows)


def _runs(parity: dict[str, Any], artefact: Artefact) -> list[dict[str, Any]]:
    """The figures of the chained runs that were judged."""
    return [
        finding["figures"]
        for finding in parity.get("findings", [])
        if finding.get("level") == "chained"
        and finding.get("candidate", "").startswith(f"{artefact.name} ")
        and finding.get("figures", {}).get("units")
    ]


def _origin(manifest: Manifest) -> list[str]:
    about = manifest.about
    facts = [f"- Model `{manifest.model}`"]
    corpus = about.get("corpus")
    if isinstance(corpus, dict):
        read = (
            f", {corpus['characters']:,} characters of it"
            if isinstance(corpus.get("characters"), int)
            else ""
        )
        facts.append(f"- Trained on {corpus.get('name')} (sha256 `{corpus.get('sha256')}`{read})")
    settings = about.get("settings")
    if isinstance(settings, dict):
        shown = (
            f"{key} {settings[key]}"
            for key in ("cell", "layers", "units", "epochs", "seed")
            if key in settings
        )
        facts.append(f"- Settings: {', '.join(shown)}")
    versions = about.get("versions")
    if isinstance(versions, dict):
        facts.append(f"- Made with {', '.join(f'{name} {version}' for name, version in versions.items())}")
    return facts
