"""The page in headless Chromium: a person writes, stops, reads, and is told what is wrong."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from steprnn.runtime import Model, load
from steprnn.runtime.bundle.manifest import FileRecord

By = pytest.importorskip("selenium.webdriver.common.by", reason="selenium is not installed").By
Chain = pytest.importorskip("selenium.webdriver.common.action_chains").ActionChains
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
Wait = functools.partial(
    pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait, timeout=30, poll_frequency=0.05
)

Run = Callable[..., Any]
LENGTH = 200


def opened(browser: Any, address: str) -> Any:
    """Open a page and wait until it is ready, or says why not."""
    browser.get(address)
    Wait(browser).until(
        lambda b: b.find_element(By.ID, "write").is_enabled() or b.find_element(By.ID, "problem").text
    )
    return browser


def value(browser: Any, name: str, text: str) -> None:
    """Type into a field, as a person does who replaces what is there."""
    field = browser.find_element(By.ID, name)
    field.clear()
    field.send_keys(text)


def text_of(browser: Any, name: str) -> str:
    return str(browser.find_element(By.ID, name).get_property("textContent"))


def finished(browser: Any) -> None:
    Wait(browser).until(lambda b: text_of(b, "said"))


def test_a_person_writes_with_a_seed_and_reads_how_fast(
    browser: Any, serve: Run, page: Path, models: dict[str, Model]
) -> None:
    opened(browser, serve(page)[0])
    assert text_of(browser, "figures") == "Ready. It knows 21 characters."
    value(browser, "prompt", "不停")
    browser.find_element(By.ID, "temperature").send_keys(Keys.ARROW_RIGHT * 4)
    value(browser, "top-k", "6")
    value(browser, "seed", str(2**40))
    value(browser, "length", str(LENGTH))
    browser.find_element(By.ID, "pace").click()
    browser.find_element(By.ID, "write").click()
    finished(browser)
    expected = models["onnx"].generate("不停", LENGTH, temperature=1.0, top_k=6, seed=2**40)
    assert text_of(browser, "text") == expected
    figures = re.fullmatch(
        r"200 characters · ([\d,]+) a second · seed 1099511627776", text_of(browser, "figures")
    )
    assert figures, text_of(browser, "figures")
    assert 50 < int(figures[1].replace(",", "")) < 1_000_000
    assert text_of(browser, "said") == "Done: 200 characters"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("temperature", ["0", "3"])
def test_a_model_of_bytes_writes_what_python_writes(
    make_page: Run, byte_bundle: Path, tmp_path: Path, run: Run, temperature: str
) -> None:
    """Hot, it hardly ever writes a whole character; and it reads any."""
    site = make_page(byte_bundle, tmp_path / "site")
    options = f"{{ length: 150, temperature: {temperature}, seed: 4n }}"
    pieces = run(
        site,
        "const pieces = [];"
        f"for await (const piece of model.stream('雨😀', {options})) pieces.push(piece); return pieces;",
    )
    model = load(byte_bundle, engine="onnx")
    assert pieces == [*model.stream("雨😀", 150, temperature=float(temperature), seed=4)]
    strange = "return [model.unit, model.encode('a\\ud800é', 'skip')]"
    assert run(site, strange) == ["byte", [97, 195, 169]]


def test_a_page_of_bytes_says_so(
    make_page: Run, byte_bundle: Path, tmp_path: Path, browser: Any, serve: Run
) -> None:
    opened(browser, serve(make_page(byte_bundle, tmp_path / "site"))[0])
    assert text_of(browser, "figures") == "Ready. It reads text of any script, byte by byte."


def test_at_reading_pace_it_says_both_speeds(browser: Any, serve: Run, page: Path) -> None:
    """And what a screen reader was told follows the language."""
    opened(browser, serve(page)[0])
    value(browser, "length", "60")
    browser.find_element(By.ID, "write").click()
    finished(browser)
    said = re.fullmatch(
        r"60 characters · shown at (\d+) a second, written at ([\d,]+) a second · seed \d+",
        text_of(browser, "figures"),
    )
    assert said, text_of(browser, "figures")
    assert 20 <= int(said[1]) <= 30
    assert int(said[2].replace(",", "")) > 100
    assert text_of(browser, "said") == "Done: 60 characters"
    browser.find_element(By.ID, "language").click()
    assert text_of(browser, "said") == "写完了：60 字"
    assert re.fullmatch(
        rf"60 字 · 以每秒 {said[1]} 字显示，实际写得出每秒 {said[2]} 字 · 种子 \d+",
        text_of(browser, "figures"),
    )


def test_a_seed_that_was_drawn_can_be_kept(browser: Any, serve: Run, page: Path) -> None:
    opened(browser, serve(page)[0])
    browser.find_element(By.ID, "pace").click()
    browser.find_element(By.ID, "write").click()
    finished(browser)
    first = text_of(browser, "text")
    browser.find_element(By.ID, "keep").click()
    assert f"seed {browser.find_element(By.ID, 'seed').get_property('value')}" in text_of(browser, "figures")
    browser.find_element(By.ID, "write").click()
    finished(browser)
    assert text_of(browser, "text") == first


def test_by_keyboard_alone_and_stopped(
    browser: Any, serve: Run, page: Path, models: dict[str, Model]
) -> None:
    """Text appears at a pace to read; Enter begins, and Escape or the button that has the focus ends."""
    opened(browser, serve(page)[0])
    for end in (Keys.ESCAPE, Keys.ENTER):
        prompt = browser.find_element(By.ID, "prompt")
        value(browser, "prompt", "月")
        value(browser, "seed", "4")
        value(browser, "length", "5000")
        prompt.send_keys(Keys.ENTER)
        # Of this round: the text of the one before stands there until it begins.
        Wait(browser).until(lambda b: not text_of(b, "said") and len(text_of(b, "text")) > 10)
        assert browser.find_element(By.ID, "stop").is_displayed()
        if end == Keys.ENTER:
            prompt.send_keys(Keys.TAB)
            assert browser.switch_to.active_element.get_property("id") == "stop"
        browser.switch_to.active_element.send_keys(end)
        finished(browser)
        shown = text_of(browser, "text")
        assert 10 < len(shown) < 1000
        assert models["onnx"].generate("月", 1000, temperature=0.8, top_k=20, seed=4).startswith(shown)
        assert text_of(browser, "said") == f"Stopped after {len(shown) - 1} characters"
        assert browser.find_element(By.ID, "write").is_displayed()
        assert not browser.execute_script("return document.activeElement === document.body")


def test_characters_that_the_model_does_not_know(
    browser: Any, serve: Run, page: Path, models: dict[str, Model]
) -> None:
    opened(browser, f"{serve(page)[0]}/?lang=zh")
    value(browser, "prompt", "分x开龘")
    value(browser, "seed", "9")
    browser.find_element(By.ID, "pace").click()
    browser.find_element(By.ID, "write").click()
    Wait(browser).until(lambda b: text_of(b, "problem") != "")  # a worker looks at it
    assert text_of(browser, "problem") == "模型不认识“x”、“龘”。"
    assert text_of(browser, "text") == ""
    browser.find_element(By.ID, "skip").click()
    finished(browser)
    following = (
        models["onnx"].generate("分开", LENGTH, temperature=0.8, top_k=20, seed=9).removeprefix("分开")
    )
    assert text_of(browser, "text") == "分x开龘" + following
    assert not browser.find_element(By.ID, "problem").is_displayed()


def damaged(name: str, change: Callable[[bytes], bytes | None]) -> Callable[[Path], None]:
    """A change of a file's bytes; None removes the file."""

    def apply(folder: Path) -> None:
        data = change((folder / name).read_bytes())
        (folder / name).unlink() if data is None else (folder / name).write_bytes(data)

    return apply


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


MODEL, WASM, SCRIPT = "model/step.onnx", "ort/ort-wasm-simd-threaded.wasm", "ort/ort.wasm.bundle.min.js"
MANIFEST = "model/manifest.json"


def swapped(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """A change of some bytes for others, which must be there."""

    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new)

    return change


def gone(data: bytes) -> None:
    """No file."""


@pytest.mark.parametrize(
    ("apply", "words"),
    [
        (damaged(MODEL, lambda data: data[:-5]), "step.onnx is broken: it has "),
        (damaged(MODEL, flipped), "step.onnx is broken: it is not the one that was packaged"),
        (damaged(MODEL, gone), "step.onnx is missing here"),
        (damaged(MANIFEST, gone), "manifest.json is missing here"),
        (damaged(MANIFEST, lambda data: b"{"), "manifest.json cannot be read"),
        (damaged(MANIFEST, lambda data: b"[]"), "manifest.json is not what it should be"),
        (damaged(MANIFEST, swapped(b'"version": 1,', b'"version": 2,')), "of a newer version, 2"),
        (damaged(MANIFEST, swapped(b'"next_c"', b'"next_h"')), "manifest.json is damaged"),
        (damaged(MANIFEST, swapped(b'"step.onnx"', b'"../s"')), "names a file outside its folder (../s)"),
        (damaged("model/vocabulary.json", flipped), "vocabulary.json is broken"),
        (damaged(SCRIPT, gone), "ort.wasm.bundle.min.js of the engine is missing"),
        (damaged(WASM, gone), "ort-wasm-simd-threaded.wasm of the engine is missing"),
        (damaged(WASM, lambda data: data[:9000]), "ort-wasm-simd-threaded.wasm) does not start"),
        (damaged("index.html", swapped(b'="float32"', b'="float16"')), "no float16 weights in ONNX"),
        (damaged("sampling.js", gone), "A script of this page is missing"),
    ],
)
def test_a_page_that_cannot_load_its_model_says_why(
    browser: Any, serve: Run, page_copy: Path, apply: Callable[[Path], None], words: str
) -> None:
    apply(page_copy)
    opened(browser, serve(page_copy)[0])
    assert words in text_of(browser, "problem")
    assert not browser.find_element(By.ID, "write").is_enabled()


def test_a_graph_that_the_engine_refuses(
    browser: Any, serve: Run, page_copy: Path, edit_page_manifest: Run
) -> None:
    graph = page_copy / "model" / "step.onnx"
    graph.write_bytes(b"no graph")
    record = vars(FileRecord.of(graph))
    edit_page_manifest(page_copy, lambda manifest: manifest["files"].update({"step.onnx": record}))
    opened(browser, f"{serve(page_copy)[0]}/?lang=zh")
    assert text_of(browser, "problem").startswith("模型无法载入。引擎不接受这个模型：")


@pytest.fixture
def without(browser: Any) -> Iterator[Callable[[str], None]]:
    """Take something of the browser away from the thread of the page."""
    given = []

    def remove(names: str) -> None:
        source = "".join(f"delete globalThis.{name};" for name in names.split())
        given.append(browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source}))

    yield remove
    for script in given:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


@pytest.mark.parametrize("gone", ["WebAssembly", "Worker"])
def test_it_writes_in_a_thread_of_its_own_or_else_in_the_pages(
    browser: Any, serve: Run, page: Path, models: dict[str, Model], without: Callable[[str], None], gone: str
) -> None:
    """Without WebAssembly the page's own thread could not take a step; it takes none."""
    without(gone)
    opened(browser, serve(page)[0])
    value(browser, "prompt", "不停")
    value(browser, "seed", "3")
    value(browser, "length", "80")
    browser.find_element(By.ID, "pace").click()
    browser.find_element(By.ID, "write").click()
    finished(browser)
    assert text_of(browser, "text") == models["onnx"].generate("不停", 80, temperature=0.8, top_k=20, seed=3)


def test_no_webassembly(browser: Any, serve: Run, page: Path, without: Callable[[str], None]) -> None:
    without("WebAssembly Worker")
    opened(browser, serve(page)[0])
    assert "This browser has no WebAssembly" in text_of(browser, "problem")


def test_opened_as_a_file_it_says_how_to_serve_it(browser: Any, page: Path) -> None:
    browser.get((page / "index.html").as_uri())
    Wait(browser).until(lambda b: text_of(b, "problem"))
    assert "python3 -m http.server" in text_of(browser, "problem")


def test_from_a_sub_path_and_from_nowhere_else(browser: Any, serve: Run, page: Path, tmp_path: Path) -> None:
    shutil.copytree(page, tmp_path / "root" / "some where" / "site")
    address, asked = serve(tmp_path / "root")
    opened(browser, f"{address}/some%20where/site/")
    browser.find_element(By.ID, "write").click()
    Wait(browser).until(lambda b: len(text_of(b, "text")) > 5)
    assert all(path.startswith("/some%20where/site/") for path in asked), asked
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert {urlsplit(name).netloc for name in loaded} == {urlsplit(address).netloc}


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_speaks(
    browser: Any, serve: Run, page: Path, tmp_path: Path, width: int, language: str
) -> None:
    """Screenshots of each are in the test's folder, to look at."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    opened(browser, f"{serve(page)[0]}/?lang={language}")
    for scheme in ("light", "dark"):
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        browser.find_element(By.ID, "write").click()
        Wait(browser).until(lambda b: len(text_of(b, "text")) > 20)
        Chain(browser).send_keys(Keys.ESCAPE).perform()  # to no element: the text may be done by now
        finished(browser)
        browser.save_screenshot(str(tmp_path / f"{width}-{language}-{scheme}.png"))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) > 384) == (scheme == "light")
    assert (
        browser.execute_script("return document.documentElement.lang")
        == {"en": "en", "zh": "zh-Hans"}[language]
    )
    assert text_of(browser, "write") == {"en": "Write", "zh": "写"}[language]
    browser.find_element(By.ID, "language").click()
    assert text_of(browser, "write") == {"zh": "Write", "en": "写"}[language]


def test_both_languages_say_everything(run: Run, page: Path) -> None:
    """The Chinese words have the keys of the English ones, and each is a text or a function."""
    missing = run(
        page,
        """const { WORDS } = await import(new URL("words.js", location.href));
        const key = ([k, v]) => (typeof v === "object" ? keys(v) : [`${k} ${typeof v}`]);
        const keys = (o) => Object.entries(o).flatMap(key);
        const [en, zh] = [keys(WORDS.en), keys(WORDS.zh)];
        return [en.filter((k) => !zh.includes(k)), zh.filter((k) => !en.includes(k)), en.length > 30];""",
    )
    assert missing == [[], [], True]
