"""`steprnn package --as npm`: the package in Node.js, and with STEPRNN_NPM=1 in Vite and for TypeScript."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steprnn.runtime import Model, cli, load
from steprnn.runtime.package import npm, ort

Run = Callable[..., Any]
NAME = "@me/verse-lstm"
SCRIPT = """\
import { load, UnknownToken } from "@me/verse-lstm";
const model = await load();
const text = await model.generate("雨", { length: 60, temperature: 1, seed: 7 });
let said = "";
try {
  model.stream("\\ud800");
} catch (error) {
  said = error.constructor === UnknownToken ? "unknown" : error.message;
}
const refused = await load({ variant: "int9" }).catch((error) => error.message);
tell([text, said, refused]);
"""
PAGE = """\
<!doctype html>
<title>wait</title>
<script type="module" src="/main.js"></script>
"""
TYPED = """\
import { load, type Model, type State } from "@me/verse-lstm";
const model: Model = await load({ variant: "float32" });
const session = model.session();
const y: Float32Array = await session.step(3);
const state: State = session.state;
for await (const piece of model.stream("雨", { length: 5 })) console.log(piece.length, y.length, state.model);
// @ts-expect-error
await load({ engine: 3 });
"""


@pytest.fixture
def node() -> str:
    return shutil.which("node") or pytest.skip("Node.js is not installed")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in whose node_modules is onnxruntime-web."""
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--prefer-offline"]
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    (folder / "package.json").write_text("{}", encoding="utf-8")
    wanted = f"{ort.PACKAGE}@{ort.VERSION}"
    if subprocess.run([*command, wanted], cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip(f"npm cannot fetch {wanted} here")
    return folder


@pytest.fixture
def project(engine: Path, tmp_path: Path) -> Path:
    """A project of its own below it."""
    folder = engine / tmp_path.name
    folder.mkdir()
    return folder


@pytest.fixture(params=["characters", "bytes"])
def bundle(request: pytest.FixtureRequest, tiny: Path) -> Path:
    return tiny if request.param == "characters" else request.getfixturevalue("byte_bundle")


@pytest.fixture(scope="module")
def signal_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras = pytest.importorskip("keras")
    from steprnn.export import export

    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential([keras.Input((None, 3)), layers.GRU(4, return_sequences=True), layers.Dense(2)])
    out = tmp_path_factory.mktemp("signal") / "signal.bundle"
    export(model, out, formats=("onnx",), variants=("float32",), chained_steps=64, say=lambda line: None)
    return out


def test_in_node_a_seed_gives_pythons_text(node: str, project: Path, bundle: Path) -> None:
    npm.write(bundle, project / "node_modules" / NAME, name=NAME, version="1.0.0")
    script = "const tell = (all) => console.log(JSON.stringify(all));\n" + SCRIPT
    (project / "main.mjs").write_text(script, encoding="utf-8")
    done = subprocess.run([node, "main.mjs"], cwd=project, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    text, said, refused = json.loads(done.stdout)
    assert text == load(bundle, engine="onnx").generate("雨", 60, temperature=1.0, seed=7)
    assert said == "unknown"
    assert refused.startswith("the bundle has no int9 graph in ONNX; it holds float32")


def test_in_node_a_damaged_file_is_named(node: str, project: Path, tiny: Path) -> None:
    out = npm.write(tiny, project / "node_modules" / NAME, name=NAME, version="1.0.0")
    with (out / "model" / "step.onnx").open("r+b") as file:
        file.seek(100)
        file.write(b"?")
    (project / "main.mjs").write_text(
        f'import {{ load }} from "{NAME}"; await load().catch((error) => console.log(error.message));',
        encoding="utf-8",
    )
    done = subprocess.run([node, "main.mjs"], cwd=project, capture_output=True, text=True, check=False)
    assert done.stdout == (
        "step.onnx was altered: its sha256 is not the manifest's; copy the folder again\n"
    ), done.stderr


def test_in_node_a_signal_model_is_stepped(node: str, project: Path, signal_bundle: Path) -> None:
    npm.write(signal_bundle, project / "node_modules" / NAME, name=NAME, version="1.0.0")
    (x,) = load(signal_bundle, engine="onnx").manifest.step.inputs
    values = [0.25 * i - 0.5 for i in range(x.size)]
    script = (
        f'import {{ load }} from "{NAME}"; const session = (await load()).session();'
        f"await session.step({values}); console.log(JSON.stringify([...(await session.step({values}))]));"
    )
    (project / "main.mjs").write_text(script, encoding="utf-8")
    done = subprocess.run([node, "main.mjs"], cwd=project, capture_output=True, text=True, check=False)
    session = load(signal_bundle, engine="onnx").session()
    session.step(values)
    assert json.loads(done.stdout) == pytest.approx(session.step(values).ravel().tolist(), abs=1e-6), (
        done.stderr
    )


def test_what_is_written(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    licence = tmp_path / "TERMS"
    licence.write_text("Sing it.", encoding="utf-8")
    argv = ["package", tiny, "--as", "npm", "--name", NAME, "--version", "1.0.0-rc.1", "--license", licence]
    for _ in range(2):  # one that is there is replaced
        assert cli.main([*map(str, argv), "--out", str(tmp_path / "out"), "--variant", "int8"]) == 0
    capfd.readouterr()
    files = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert files == {
        *npm.SCRIPTS,
        *("index.js", "index.d.ts", "node.js", "package.json", "README.md", "LICENSE"),
        *("model/manifest.json", "model/vocabulary.json", "model/step.int8.onnx"),
    }
    record = json.loads((tmp_path / "out" / "package.json").read_text(encoding="utf-8"))
    assert (record["version"], record["license"]) == ("1.0.0-rc.1", "SEE LICENSE IN LICENSE")
    assert record["dependencies"] == {"onnxruntime-web": ort.VERSION}
    assert 'variant: "int8"' in (tmp_path / "out" / "index.js").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--name is None; expected a name for npm, such as lyrics-lstm or @me/lyrics-lstm"),
        (["--name", "Big"], "--name is Big; expected a name for npm, such as lyrics-lstm or @me/lyrics-lstm"),
        (["--name", "a", "--version", "1.0"], "--version is 1.0; expected three numbers, such as 1.0.0"),
        (
            ["--name", "a", "--version", "1.0.0", "--variant", "float16"],
            "has no float16 graph in ONNX, which browsers run; it holds tflite-float32,",
        ),
        (["--name", "a", "--version", "1.0.0", "--out", "."], ". exists and is not such a package;"),
        (["--name", "a", "--version", "1.0.0", "--ort", "."], "--ort only means something with --as web"),
    ],
)
def test_what_is_refused(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    flags: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photograph.jpg").write_bytes(b"1")
    assert cli.main(["package", str(tiny), "--as", "npm", *flags]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photograph.jpg"]


@pytest.mark.skipif("STEPRNN_NPM" not in os.environ, reason="set STEPRNN_NPM=1: it fetches 250 MB from npm")
def test_in_vite_and_typescript(
    tiny: Path, tmp_path: Path, browser: Any, serve: Run, models: dict[str, Model]
) -> None:
    """As built, and from Vite's server for development; and its types hold."""
    npm.write(tiny, tmp_path / "package", name=NAME, version="1.0.0")
    (tmp_path / "app").mkdir()
    app = tmp_path / "app"
    files = {
        "package.json": '{"type": "module"}',
        "index.html": PAGE,
        "main.js": "const tell = (all) => (document.title = JSON.stringify(all));\n" + SCRIPT,
        "typed.mts": TYPED,
        "vite.config.js": (tmp_path / "package" / "README.md")
        .read_text(encoding="utf-8")
        .split("vite.config.js`:\n\n```js\n")[1]
        .split("```")[0],
    }
    for name, text in files.items():
        (app / name).write_text(text, encoding="utf-8")
    install = [
        "npm",
        "install",
        "--silent",
        "--install-links",
        "vite@8",
        "typescript@5",
        tmp_path / "package",
    ]
    subprocess.run(install, cwd=app, check=True, timeout=600)
    types = ["npx", "tsc", "--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "typed.mts"]
    checked = subprocess.run(types, cwd=app, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")
    subprocess.run(["npx", "vite", "build", "--target", "es2022"], cwd=app, check=True, capture_output=True)
    expected = models["onnx"].generate("雨", 60, temperature=1.0, seed=7)

    def title(address: str) -> list[str]:
        from selenium.webdriver.support.ui import WebDriverWait

        browser.get(address)
        WebDriverWait(browser, 60).until(lambda b: b.title not in ("", "wait"))
        return json.loads(browser.title)

    assert title(serve(app / "dist")[0])[0] == expected
    port = "4187"
    command = ["npx", "vite", "--port", port, "--strictPort"]
    with subprocess.Popen(command, cwd=app, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            while b"Local" not in server.stdout.readline():
                assert server.poll() is None
            assert title(f"http://localhost:{port}/")[0] == expected
        finally:
            subprocess.run(["pkill", "-P", str(server.pid)], check=False)
            server.terminate()
