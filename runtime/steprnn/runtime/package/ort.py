"""onnxruntime-web for a page: two files of the npm package, of one version, compared with their hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from ..atomic import write_bytes
from ..claims import temporary_folder
from ..errors import SteprnnError, UsageError

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"  # a newer one is measured first, then its hashes are written here
# Name in the page's folder -> name in the package and its sha256. The module is renamed because many
# servers still give .mjs a type that browsers refuse; of all bundles it is the smallest: wasm alone.
FILES = {
    "ort.wasm.bundle.min.js": (
        "dist/ort.wasm.bundle.min.mjs",
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    "ort-wasm-simd-threaded.wasm": (
        "dist/ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}
INSTALL = f"npm install {PACKAGE}@{VERSION}"


def engine_files(folder: Path | None = None) -> dict[str, bytes]:
    """The engine's files by their name in a page.

    From `folder`, a node_modules folder or the package in one, where it is given; otherwise from the
    user's cache, which npm fills the first time. Raises `UsageError` where npm is missing or the folder
    holds no such package, and `SteprnnError` where a file is not that of the version.
    """
    if folder is not None:
        return _read(_package_in(folder), f"run: {INSTALL}")
    cache = _cache()
    if not all((cache / path).is_file() for path, _ in FILES.values()):
        _fill(cache)
    return _read(cache, f"remove {cache}, and it is fetched again")


def _package_in(folder: Path) -> Path:
    for place in (folder / PACKAGE, folder / "node_modules" / PACKAGE, folder):
        if (place / "dist").is_dir():
            return place
    raise UsageError(f"{folder} holds no {PACKAGE}; expected a node_modules folder after: {INSTALL}")


def _read(package: Path, fix: str) -> dict[str, bytes]:
    """The files of a package's folder, each compared with its hash."""
    found = {}
    for name, (path, digest) in FILES.items():
        try:
            data = (package / path).read_bytes()
        except FileNotFoundError:
            raise SteprnnError(f"{package / path} is missing; {fix}") from None
        _check(data, digest, str(package / path), fix)
        found[name] = data
    return found


def _check(data: bytes, digest: str, what: str, fix: str) -> None:
    if hashlib.sha256(data).hexdigest() != digest:
        raise SteprnnError(f"{what} is not that of {PACKAGE} {VERSION}; {fix}")


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "steprnn" / f"{PACKAGE}-{VERSION}"


def _fill(cache: Path) -> None:
    """Have npm bring the package, and keep what a page needs of it."""
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError(
            f"a page needs {PACKAGE} {VERSION}, which npm brings, and npm is not installed; install Node.js, "
            f"or give a node_modules folder with --ort, where somebody has run: {INSTALL}"
        )
    with temporary_folder() as name:
        command = [npm, "pack", "--loglevel=error", f"{PACKAGE}@{VERSION}"]
        packed = subprocess.run(command, cwd=name, capture_output=True, text=True, check=False)
        archive = Path(name) / f"{PACKAGE}-{VERSION}.tgz"
        if packed.returncode or not archive.is_file():
            lines = [line.split(maxsplit=2)[-1] for line in packed.stderr.splitlines()]  # after "npm error"
            said = "; ".join(lines[:2])
            raise SteprnnError(
                f"npm cannot fetch {PACKAGE}@{VERSION} ({said}); or give --ort, after: {INSTALL}"
            )
        with tarfile.open(archive) as opened:
            for path, digest in FILES.values():
                member = opened.extractfile(f"package/{path}")
                data = b"" if member is None else member.read()
                _check(data, digest, f"{path} of {archive.name}", "npm brought another; try again")
                (cache / path).parent.mkdir(parents=True, exist_ok=True)
                write_bytes(cache / path, data)
