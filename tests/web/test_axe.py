"""axe-core finds nothing to object to, in any state of the page, in both languages, light and dark."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

By = pytest.importorskip("selenium.webdriver.common.by", reason="selenium is not installed").By
Wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait

VERSION = "4.14.1"
SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
RUN = "const done = arguments[0]; axe.run(document).then(done, (e) => done({ error: String(e) }));"


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, of one version, from npm."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, so there is no axe-core")
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--silent", "--ignore-scripts", f"axe-core@{VERSION}"]
    fetched = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120)
    path = folder / "node_modules" / "axe-core" / "axe.min.js"
    if fetched.returncode or not path.is_file():
        pytest.skip("npm cannot fetch axe-core here")
    data = path.read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256
    return data.decode()


def violations(browser: Any, axe: str) -> list[tuple[str, str]]:
    """Rules that the page breaks as it is, and where."""
    browser.execute_script(axe)
    found = browser.execute_async_script(RUN)
    assert found.get("passes"), found
    return [(v["id"], node["html"]) for v in found["violations"] for node in v["nodes"]]


def test_axe_finds_what_is_wrong(browser: Any, serve: Callable[..., Any], page_copy: Path, axe: str) -> None:
    """So that an empty list means something."""
    index = page_copy / "index.html"
    text = index.read_text(encoding="utf-8")
    index.write_text(text.replace('<label for="seed" data-say="seed">Seed</label>', ""), encoding="utf-8")
    browser.get(serve(page_copy)[0])
    assert "label" in {rule for rule, _ in violations(browser, axe)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_to_object_to(
    browser: Any, serve: Callable[..., Any], page: Path, axe: str, scheme: str, language: str, width: int
) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(f"{serve(page)[0]}/?lang={language}")
    wait = Wait(browser, timeout=30, poll_frequency=0.05)
    wait.until(lambda b: b.find_element(By.ID, "write").is_enabled())
    assert violations(browser, axe) == [], "ready"
    browser.find_element(By.ID, "write").click()
    wait.until(lambda b: len(b.find_element(By.ID, "text").text) > 5)
    assert violations(browser, axe) == [], "writing"
    browser.find_element(By.ID, "stop").click()
    wait.until(lambda b: b.find_element(By.ID, "said").get_property("textContent"))
    assert violations(browser, axe) == [], "stopped"
    field = browser.find_element(By.ID, "prompt")
    field.clear()
    field.send_keys("龘")
    browser.find_element(By.ID, "write").click()
    wait.until(lambda b: b.find_element(By.ID, "problem").text)
    assert violations(browser, axe) == [], "a problem"
