"""`steprnn package --as web`: what is written, and what is refused before anything is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from steprnn.runtime import cli
from steprnn.runtime.bundle.manifest import FileRecord
from steprnn.runtime.package import ort

Run = Callable[..., str]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def refusal(tiny_copy: Path, capfd: Capture) -> Run:
    """Run the command on a copy of the tiny bundle; return the one line it says."""

    def run(code: int, *argv: object) -> str:
        before = sorted(tiny_copy.parent.rglob("*"))
        assert cli.main(["package", str(tiny_copy), "--as", "web", *map(str, argv)]) == code
        assert sorted(tiny_copy.parent.rglob("*")) == before
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return err.removeprefix("steprnn: ").removesuffix("\n")

    return run


@pytest.fixture
def node_modules(page: Path, tmp_path: Path) -> Path:
    """A node_modules folder as npm would leave it."""
    for name, (path, _) in ort.FILES.items():
        target = tmp_path / "node_modules" / ort.PACKAGE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page / "ort" / name, target)
    return tmp_path / "node_modules"


def test_a_page_holds_what_it_needs_and_no_more(
    tiny: Path, node_modules: Path, tmp_path: Path, capfd: Capture
) -> None:
    """Twice to the same place: a page is replaced."""
    out = tmp_path / "site"
    for variant, graph in (("float32", "step.onnx"), ("int8", "step.int8.onnx")):
        argv = ["package", tiny, "--as", "web", "--out", out, "--ort", node_modules, "--variant", variant]
        assert cli.main([str(a) for a in argv]) == 0
        assert capfd.readouterr().out == f"{out}\n"
        files = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
        assert {name for name in files if name.startswith("ort/")} == {f"ort/{name}" for name in ort.FILES}
        model = {"manifest.json", "vocabulary.json", graph}
        assert {name for name in files if name.startswith("model/")} == {f"model/{name}" for name in model}
        assert {"index.html", "steprnn.js", "steprnn.d.ts", "NOTICE"} <= files
        assert f'data-variant="{variant}"' in (out / "index.html").read_text(encoding="utf-8")
    assert (out / "model" / "manifest.json").read_bytes() == (tiny / "manifest.json").read_bytes()


def test_nothing_else_is_replaced(refusal: Run, tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "one.jpg").write_bytes(b"1")
    line = refusal(2, "--out", tmp_path / "photographs")
    assert (
        line
        == f"{tmp_path / 'photographs'} exists and is not a page; choose another --out, nothing was changed"
    )


def test_a_bundle_without_the_graph(
    tiny_copy: Path, refusal: Run, edit_manifest: Callable[..., None]
) -> None:
    line = refusal(2, "--out", tiny_copy.parent / "site", "--variant", "float16")
    assert f"{tiny_copy} has no float16 graph in ONNX, which browsers run; it holds tflite-float32, " in line
    assert line.endswith("choose another --variant, or export with --formats onnx --quantize float16")
    edit_manifest(tiny_copy, lambda record: record["step"]["inputs"][0].pop("tokens"))
    line = refusal(2, "--out", tiny_copy.parent / "site")
    assert (
        line == f"{tiny_copy} is not of a language model; expected one with a vocabulary.json, to write text"
    )


def test_a_damaged_bundle(tiny_copy: Path, refusal: Run) -> None:
    (tiny_copy / "step.onnx").write_bytes(b"1")
    assert f"{tiny_copy / 'step.onnx'} has 1 bytes, expected " in refusal(
        1, "--out", tiny_copy.parent / "site"
    )


def test_an_engine_that_is_not_the_one_that_was_tried(
    refusal: Run, node_modules: Path, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "site")
    wasm = node_modules / "onnxruntime-web" / "dist" / "ort-wasm-simd-threaded.wasm"
    wasm.write_bytes(wasm.read_bytes()[:-1] + b"?")
    install = f"run: npm install onnxruntime-web@{ort.VERSION}"
    assert (
        refusal(1, *out, "--ort", node_modules)
        == f"{wasm} is not that of onnxruntime-web {ort.VERSION}; {install}"
    )
    wasm.unlink()
    assert refusal(1, *out, "--ort", node_modules) == f"{wasm} is missing; {install}"
    line = refusal(2, *out, "--ort", tmp_path / "tiny.bundle")
    assert line.startswith(
        f"{tmp_path / 'tiny.bundle'} holds no onnxruntime-web; expected a node_modules folder"
    )


def test_no_npm(refusal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    line = refusal(2, "--out", tmp_path / "site")
    assert line.startswith(
        f"a page needs onnxruntime-web {ort.VERSION}, which npm brings, and npm is not installed;"
    )
    assert "--ort" in line


def test_a_cache_that_was_damaged(
    refusal: Run, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "steprnn" / f"onnxruntime-web-{ort.VERSION}"
    for path, _ in ort.FILES.values():
        (cache / path).parent.mkdir(parents=True, exist_ok=True)
        (cache / path).write_bytes(b"cut")
    line = refusal(1, "--out", tmp_path / "site")
    assert line.startswith(str(cache))
    assert line.endswith(
        f"is not that of onnxruntime-web {ort.VERSION}; remove {cache}, and it is fetched again"
    )


def test_npm_without_a_network(refusal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / f"{tmp_path.name}-cache"))
    monkeypatch.setenv("npm_config_cache", str(tmp_path.parent / f"{tmp_path.name}-npm"))
    monkeypatch.setenv("npm_config_offline", "true")
    line = refusal(1, "--out", tmp_path / "site")
    assert line.startswith(f"npm cannot fetch onnxruntime-web@{ort.VERSION} (code ENOTCACHED; ")
    assert line.endswith(f"or give --ort, after: npm install onnxruntime-web@{ort.VERSION}")
    assert not any((tmp_path.parent / f"{tmp_path.name}-cache").rglob("*.wasm"))


def test_a_state_that_does_not_begin_at_zero_goes_along(
    tiny_copy: Path, node_modules: Path, edit_manifest: Callable[..., None], tmp_path: Path
) -> None:
    np = pytest.importorskip("numpy")
    np.savez(tiny_copy / "initial.npz", h=np.ones(8, np.float32))
    record = vars(FileRecord.of(tiny_copy / "initial.npz"))
    edit_manifest(tiny_copy, lambda manifest: manifest["files"].update({"initial.npz": record}))
    argv = ["package", tiny_copy, "--as", "web", "--out", tmp_path / "site", "--ort", node_modules]
    assert cli.main([str(a) for a in argv]) == 0
    listed = json.loads((tmp_path / "site" / "model" / "manifest.json").read_text(encoding="utf-8"))["files"]
    assert vars(FileRecord.of(tmp_path / "site" / "model" / "initial.npz")) == listed["initial.npz"]
