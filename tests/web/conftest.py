"""A real browser on real pages: the page of the tiny bundle, a server of static files, and Chromium."""

from __future__ import annotations

import functools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from steprnn.runtime.package import ort, web

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
HOST = "page.test"  # leads to this machine in the tests' browser, and is no secure context as localhost is


@pytest.fixture(scope="session")
def make_page() -> Callable[..., Path]:
    """Write the page of a bundle; skips where onnxruntime-web cannot be had."""
    if shutil.which("npm") is None and not ort._cache().is_dir():
        pytest.skip("npm is not installed, so there is no onnxruntime-web for a page")
    return web.write


@pytest.fixture(scope="session")
def page(make_page: Callable[..., Path], tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the tiny bundle; not to be written to."""
    return make_page(tiny, tmp_path_factory.mktemp("web") / "site")


@pytest.fixture
def page_copy(page: Path, tmp_path: Path) -> Path:
    """A copy of the page, to damage."""
    return shutil.copytree(page, tmp_path / "site")


class Files(SimpleHTTPRequestHandler):
    """A server as plain as they come, which remembers what it was asked for."""

    asked: list[str]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Remember, and answer."""
        type(self).asked.append(self.path)
        super().do_GET()


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, list[str]]]]:
    """Serve a folder; returns its address and the list of paths that are asked for."""
    servers = []

    def start(folder: Path, host: str = "127.0.0.1") -> tuple[str, list[str]]:
        handler = type("Handler", (Files,), {"asked": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://{host}:{server.server_port}", handler.asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One headless Chromium for all tests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser, driver = next(filter(None, map(shutil.which, NAMES)), None), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in ("--headless=new", "--disable-dev-shm-usage", "--lang=en-US"):
        options.add_argument(flag)
    options.add_argument(f"--host-resolver-rules=MAP {HOST} 127.0.0.1")
    if os.geteuid() == 0:  # Chromium's sandbox refuses root, which is who runs in a container
        options.add_argument("--no-sandbox")
    # Told where the driver is, selenium downloads nothing.
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    started.set_script_timeout(60)
    yield started
    started.quit()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    """The browser, with no page open and nothing kept of the test before."""
    chromium.get("about:blank")
    chromium.execute_cdp_cmd("Network.clearBrowserCache", {})  # another server may get the port of an old one
    chromium.get_log("browser")
    yield chromium
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    chromium.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "all"})


@pytest.fixture
def run(browser: Any, serve: Callable[..., tuple[str, list[str]]]) -> Callable[..., Any]:
    """Run a function body of JavaScript with `load` of the page in a folder; returns what it returns.

    It has `model`, loaded with the options that are given, and `library`, the module; an error comes
    back as `{"error": its class, "code": ..., "message": ...}`.
    """

    def call(folder: Path, body: str, variant: str = "float32", host: str = "127.0.0.1") -> Any:
        address, _ = serve(folder, host)
        result: Any = None
        # Each page reserves gigabytes of address space for its wasm, which a busy Chromium frees late and
        # may then be short of. A graph that is really refused is refused twice.
        for _attempt in range(2):
            browser.get("about:blank")
            browser.get(f"{address}/icon.svg")
            result = once(address, body, variant)
            if not (isinstance(result, dict) and result.get("code") == "refused"):
                break
        return result

    def once(address: str, body: str, variant: str) -> Any:
        return browser.execute_async_script(
            """const [address, body, variant, done] = arguments;
            const AsyncFunction = (async () => {}).constructor;
            (async () => {
              const library = await import(`${address}/steprnn.js`);
              const model = await library.load(`${address}/model`, { variant });
              return new AsyncFunction("model", "library", body)(model, library);
            })().then(done, (e) => done({ error: e.name, code: e.code, message: e.message }));""",
            address,
            body,
            variant,
        )

    return call


@pytest.fixture(scope="session")
def edit_page_manifest() -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    """Change the manifest of a page's model by a function of its record."""

    def edit(page: Path, change: Callable[[dict[str, Any]], object]) -> None:
        path = page / "model" / "manifest.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        change(record)
        path.write_text(json.dumps(record), encoding="utf-8")

    return edit
