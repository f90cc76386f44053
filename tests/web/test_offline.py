"""The page without a network, after one visit with it; and with one, nothing that is kept is shown."""

from __future__ import annotations

import functools
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from steprnn.runtime import Model

By = pytest.importorskip("selenium.webdriver.common.by", reason="selenium is not installed").By
Wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait

KEPT = """const done = arguments[0];
navigator.serviceWorker.ready.then(async ({ active }) => {
  const changed = () => new Promise((done) => active.addEventListener("statechange", done, { once: true }));
  while (active.state !== "activated") await changed();
  const names = await caches.keys();
  const cache = await caches.open(names[0]);
  done([names.length, (await cache.keys()).map((request) => request.url), active.state]);
});"""


class Quiet(SimpleHTTPRequestHandler):
    """A server of static files that says nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hosted(page_copy: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of a page in a sub-path, and what switches its server off."""
    shutil.move(page_copy, page_copy.parent / "root" / "poems")
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(page_copy.parent / "root"))
    )
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def off() -> None:
        server.shutdown()
        server.server_close()

    yield f"http://127.0.0.1:{server.server_port}/poems/", off
    off()


def ready(browser: Any, address: str) -> None:
    browser.get(address)
    wait = Wait(browser, timeout=30, poll_frequency=0.05)
    wait.until(lambda b: b.find_element(By.ID, "write").is_enabled())


def written(browser: Any) -> str:
    for name, text in (("seed", "7"), ("length", "30")):
        browser.find_element(By.ID, name).clear()
        browser.find_element(By.ID, name).send_keys(text)
    browser.find_element(By.ID, "pace").click()
    browser.find_element(By.ID, "write").click()
    wait = Wait(browser, timeout=30, poll_frequency=0.05)
    wait.until(lambda b: b.find_element(By.ID, "said").get_property("textContent"))
    return str(browser.find_element(By.ID, "text").get_property("textContent"))


def test_it_writes_without_a_network_after_one_visit(
    browser: Any, hosted: tuple[str, Callable[[], None]], models: dict[str, Model]
) -> None:
    address, off = hosted
    ready(browser, address)
    caches, kept, state = browser.execute_async_script(KEPT)
    assert (caches, state) == (1, "activated")
    assert {
        f"{address}{name}" for name in ("", "page.js", "model/step.onnx", "ort/ort.wasm.bundle.min.js")
    } <= {*kept}
    off()
    browser.execute_cdp_cmd("Network.clearBrowserCache", {})  # which is another one
    ready(browser, f"{address}?lang=zh")
    expected = models["onnx"].generate("分开", 30, temperature=0.8, top_k=20, seed=7)
    assert written(browser) == expected


def test_with_a_network_what_was_kept_is_not_shown(
    browser: Any, hosted: tuple[str, Callable[[], None]], page_copy: Path
) -> None:
    address, _ = hosted
    ready(browser, address)
    browser.execute_async_script(KEPT)
    browser.execute_cdp_cmd("Network.clearBrowserCache", {})  # the browser's own, which may be young enough
    index = page_copy.parent / "root" / "poems" / "index.html"
    index.write_text("<title>another program</title>", encoding="utf-8")
    browser.get(address)
    assert browser.title == "another program"


def test_a_page_keeps_all_that_a_visitor_fetches_and_names_its_version(page: Path) -> None:
    text = (page / "sw.js").read_text(encoding="utf-8")
    version = re.search(r'^const VERSION = "([0-9a-f]{16})";', text, re.MULTILINE)
    files = re.search(r"^const FILES = (\[.*\]);$", text, re.MULTILINE)
    assert version
    assert files
    there = {path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()}
    assert {*json.loads(files[1])} == (there - {"sw.js", "NOTICE", "steprnn.d.ts", "package.json"}) | {"./"}
