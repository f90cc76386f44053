"""The page of each variant, in headless Chromium: `python benchmarks/web.py BUNDLE`.

Every ONNX variant of the bundle is packaged and served from this machine; the pages take turns, each loaded
anew. Needs npm, Chromium, chromedriver and selenium (the extra `dev`). Prints Markdown.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import os
import shutil
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tables import add_argument, put

from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.markdown import table
from steprnn.runtime.origin import install
from steprnn.runtime.package import web

VISITS, TIMES, LENGTH = 4, 5, 1500  # characters of a text
HEAD = ["`--variant`", "model, MB", "all, MB", "all, gzipped", "us a character, greedy", "drawn"]
HEAD += ["characters a second", "load, ms"]
DRAWN = "temperature: 0.8, topK: 40, topP: 0.95, seed: 7"
SCRIPT = f"""const [address, variant, done] = arguments;
(async () => {{
  const {{ load }} = await import(address + "/steprnn.js");
  const began = performance.now();
  const model = await load(address + "/model", {{ variant }});
  const loaded = performance.now() - began;
  const prompt = model.vocabulary.find((token) => token.trim());
  const best = async (options) => {{
    const times = [];
    for (let i = 0; i < {TIMES}; i++) {{
      const from = performance.now();
      await model.generate(prompt, {{ length: {LENGTH}, ...options }});
      times.push(((performance.now() - from) * 1000) / {LENGTH});
    }}
    return Math.min(...times);
  }};
  await model.generate(prompt, {{ length: 300 }});
  return {{ loaded, greedy: await best({{}}), drawn: await best({{ {DRAWN} }}) }};
}})().then(done, (error) => done({{ error: String(error) }}));"""


class Quiet(SimpleHTTPRequestHandler):
    """Static files, without a log."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def main() -> None:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    add_argument(parser)
    arguments = parser.parse_args()
    variants = [a.variant for a in Manifest.read(arguments.bundle).artefacts if a.format == "onnx"]
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        pages = {v: web.write(arguments.bundle, Path(folder) / v, variant=v) for v in variants}
        addresses = {variant: serve(page) for variant, page in pages.items()}
        seen: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
        for visit in range(VISITS):
            print(f"visit {visit + 1} of {VISITS}", file=sys.stderr, flush=True)
            for variant, address in addresses.items():
                browser.get("about:blank")
                browser.get(f"{address}/icon.svg")
                found = browser.execute_async_script(SCRIPT, address, variant)
                if "error" in found:
                    raise SystemExit(f"{variant}: {found['error']}")
                seen[variant].append(found)
        lines = table(HEAD, [row(variant, pages[variant], seen[variant]) for variant in variants])
    print("\n".join(lines))
    put(arguments.tables, {"web": lines})


def row(variant: str, page: Path, seen: list[dict[str, float]]) -> list[str]:
    """The bytes of a page, the best of all times, and the median of the times to load."""
    files = [path.read_bytes() for path in page.rglob("*") if path.is_file()]
    model = sum(path.stat().st_size for path in (page / "model").glob("*.onnx"))
    sizes = [model, sum(map(len, files)), sum(len(gzip.compress(data)) for data in files)]
    greedy, drawn = (min(found[name] for found in seen) for name in ("greedy", "drawn"))
    cells = [f"{size / 1e6:.1f}" for size in sizes] + [f"{greedy:.1f}", f"{drawn:.1f}"]
    cells += [f"{1e6 / greedy:,.0f}", f"{statistics.median(found['loaded'] for found in seen):,.0f}"]
    return [f"`{variant}`", *cells]


def serve(folder: Path) -> str:
    """Serve a folder for as long as the process runs; returns its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium, the one that is installed."""
    try:
        from selenium import webdriver
    except ImportError:
        raise SystemExit(f"selenium is not installed; run: {install('dev')}") from None
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        raise SystemExit("Chromium or chromedriver is not installed; on Debian: chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    if os.geteuid() == 0:  # Chromium's sandbox refuses root
        options.add_argument("--no-sandbox")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_script_timeout(120)
    try:
        yield browser
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
