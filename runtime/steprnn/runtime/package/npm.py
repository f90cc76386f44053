"""A bundle as a package for npm: the model, and the module with types that steps it on onnxruntime-web."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from ..atomic import new_folder
from ..bundle.manifest import Manifest
from ..bundle.packed import Place
from ..errors import UsageError
from .card import beginning, summary
from .licence import read_licence
from .ort import PACKAGE, VERSION
from .web import SITE, copy_graph, graph_of

SCRIPTS = (
    *("bundle.js", "engine.js", "errors.js", "npz.js", "random.js", "sampling.js", "session.js"),
    *("sha256.js", "steprnn.d.ts", "steprnn.js", "stops.js"),
)
NAME = re.compile(r"(?:@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*")
NUMBERS = re.compile(r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?")

# A bundler takes a file along where its address is written out like this.
INDEX = """\
// The model of this package: `const model = await load()`.

import * as ort from "onnxruntime-web/wasm";
import {{ load as open }} from "./steprnn.js";

export * from "./steprnn.js";

const FILES = {{
{files}
}};

const place = (name) => FILES[name];

export const load = (options = {{}}) => open(place, {{ variant: {variant}, engine: ort, ...options }});
"""
NODE = """\
// The same in Node.js, whose fetch reads no files.

import { readFile } from "node:fs/promises";
import { load as open } from "./index.js";

export * from "./index.js";

const read = async (url) => new Response(await readFile(url));

export const load = (options = {}) => open({ fetch: read, ...options });
"""
TYPES = """\
import type { LoadOptions, Model } from "./steprnn.js";

export * from "./steprnn.js";
/** Load the model of this package. Throws `BundleError` or `EngineError`. */
export function load(options?: LoadOptions): Promise<Model>;
"""
README = """\
# {name}

{summary}, as a step graph that was checked against TensorFlow, by steprnn. It runs on
onnxruntime-web in a browser and in Node.js (18 or newer).

```js
import {{ load }} from "{name}";

const model = await load();
{use}
```

`index.d.ts` has the types. The graph is `{path}`, {bytes:,} bytes, of variant {variant}.

A bundler takes the model's files and onnxruntime-web's wasm along. Vite's server for development
does not, where it bundles dependencies by itself, so tell it in `vite.config.js`:

```js
export default {{ optimizeDeps: {{ exclude: ["{name}", "onnxruntime-web"] }} }};
```

The scripts are of steprnn, Apache-2.0. {licence}
"""


def default_out(bundle: Path) -> Path:
    """Where the package goes if nobody says."""
    return Path("npm")


def write(
    bundle: Place,
    out: Path,
    *,
    name: str | None = None,
    version: str | None = None,
    license: str | None = None,
    variant: str = "float32",
) -> Path:
    """Write the folder `out`, which npm installs and publishes, whole or not at all; one that is there goes.

    `license` is an SPDX expression or the path of a file, `variant` that of the ONNX graph. Raises
    `UsageError` where an argument cannot be meant, the bundle has no such graph or begins from a start graph,
    or something else is at `out`; `BundleError` where a file is damaged.
    """
    if name is None or not NAME.fullmatch(name):
        raise UsageError(f"--name is {name}; expected a name for npm, such as lyrics-lstm or @me/lyrics-lstm")
    if version is None or not NUMBERS.fullmatch(version):
        given = "missing" if version is None else version
        raise UsageError(f"--version is {given}; expected three numbers, such as 1.0.0")
    if out.exists() and not (out.is_dir() and ((out / "node.js").is_file() or not any(out.iterdir()))):
        raise UsageError(f"{out} exists and is not such a package; choose another --out, nothing was changed")
    text, expression = read_licence(license)
    manifest = Manifest.read(bundle)
    if manifest.start is not None:
        raise UsageError(f"{bundle} begins from a start graph, which the module for browsers does not run")
    artefact = graph_of(bundle, manifest, variant)
    with new_folder(out) as folder:
        for script in SCRIPTS:
            shutil.copyfile(SITE / script, folder / script)
        names = copy_graph(bundle, manifest, artefact, folder / "model")
        lines = [
            f"  {json.dumps(n)}: new URL({json.dumps(f'./model/{n}')}, import.meta.url),"
            for n in sorted(names)
        ]
        index = INDEX.format(files="\n".join(lines), variant=json.dumps(variant))
        readme = README.format(
            name=name,
            summary=summary(manifest),
            use=_use(folder / "model", manifest),
            path=artefact.path,
            bytes=manifest.size_of(artefact),
            variant=variant,
            licence=f"The licence of the model is {expression or 'in the file LICENSE'}."
            if text or expression
            else "Ask whoever gave you the model for its licence.",
        )
        written = {
            "index.js": index,
            "node.js": NODE,
            "index.d.ts": TYPES,
            "README.md": readme,
            "package.json": json.dumps(_package(name, version, text, expression, manifest), indent=2) + "\n",
        } | ({"LICENSE": text} if text else {})
        for path, content in written.items():
            (folder / path).write_text(content, encoding="utf-8")
    return out


def _package(
    name: str, version: str, text: str | None, expression: str | None, manifest: Manifest
) -> dict[str, object]:
    """package.json."""
    return {
        "name": name,
        "version": version,
        "description": summary(manifest),
        "license": expression or ("SEE LICENSE IN LICENSE" if text else "UNLICENSED"),
        "type": "module",
        "exports": {".": {"types": "./index.d.ts", "node": "./node.js", "default": "./index.js"}},
        "types": "./index.d.ts",
        "sideEffects": False,
        "engines": {"node": ">=18"},
        "dependencies": {PACKAGE: VERSION},
    }


def _use(folder: Path, manifest: Manifest) -> str:
    """Some lines that do something with the model."""
    if manifest.writes_text:
        prompt = json.dumps(beginning(folder), ensure_ascii=False)
        return f"console.log(await model.generate({prompt}, {{ length: 50, temperature: 0.8, seed: 7 }}));"
    x = ", ".join(f"{t.name}: new Float32Array({t.size})" for t in manifest.step.stepped)
    return f"const session = model.session();\nconst y = await session.step({{ {x} }});"
