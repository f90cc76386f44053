"""A bundle in one zip file, which may come from a stranger: nothing is unpacked before all of it fits.

docs/bundle-format.md, "In one file", is the specification; this file follows it.
"""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import BundleError
from ..files import MANIFEST
from .checked import is_inside
from .manifest import FileRecord, Manifest
from .packed import Packed

SUFFIX = ".zip"
# A bundle of the book's model has 10 files and 22 MB; these are what a machine can bear, not what is usual.
MOST_ENTRIES = 1000
MOST_BYTES = 2**31
MOST_MANIFEST = 2**22  # it is parsed in memory, and JSON takes ten times its size there
MOST_RATIO = 200  # of all to the archive; deflate reaches 1,032, and weights that are nine tenths zero 8
SLACK = 2**20  # what a small archive may hold whatever its ratio
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
CHUNK = 2**20
Choice = Callable[[Manifest], Iterable[str]]


def read(path: Path, choice: Choice | None = None) -> Packed:
    """The files of the bundle at `path` in memory, each compared with the manifest; raises as `unpack` does.

    `choice` gives the names of the files that are wanted, beside manifest.json; without it, all.
    """
    files: dict[str, bytes] = {}
    with _opened(path) as (archive, entries):
        files[MANIFEST] = _data(path, archive, entries[MANIFEST], None)
        manifest = Manifest.read(Packed(path, files))
        _check_listed(path, entries, manifest)
        for name in manifest.files if choice is None else choice(manifest):
            files[name] = _data(path, archive, entries[name], manifest.files[name])
    return Packed(path, files)


def unpack(path: Path, folder: Path, choice: Choice | None = None) -> None:
    """Write the files of the bundle at `path` into the empty `folder`, each compared with the manifest.

    `choice` gives the names of the files that are wanted, beside manifest.json; without it, all.
    Raises `BundleError`, before anything is written, where the archive holds what the manifest does not
    list, a name that would leave the folder, a link, a name twice, something encrypted, or more than the
    limits above; and where a file is not what the manifest says.
    """
    with _opened(path) as (archive, entries):
        with (folder / MANIFEST).open("xb") as file:
            _copy(path, archive, entries[MANIFEST], file, None)
        manifest = Manifest.read(folder)
        _check_listed(path, entries, manifest)
        for name in manifest.files if choice is None else choice(manifest):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                _copy(path, archive, entries[name], file, manifest.files[name])


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """The archive and its entries by name, which are fit to be read."""
    try:
        with path.open("rb") as file:
            _check_end(path, file)
            with zipfile.ZipFile(file) as archive:
                yield archive, _checked(path, archive)
    # zipfile has NotImplementedError for a compression that it does not know.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is a damaged zip ({error}); copy it again") from None


def _refuse(path: Path, what: str) -> BundleError:
    return BundleError(f"{path} {what}; do not trust it, or pack the bundle with: steprnn package")


def _check_end(path: Path, file: BinaryIO) -> None:
    """Bound the list of entries, which is read into memory at once, before anything parses it."""
    size = file.seek(0, 2)
    if size > MOST_BYTES:
        raise _refuse(path, f"has {size:,} bytes, expected at most {MOST_BYTES:,}")
    file.seek(max(size - 42, 0))
    end = file.read()
    if len(end) < 22 or end[-22:-18] != b"PK\5\6":
        raise BundleError(f"{path} is not a bundle in a zip file, or was cut short; copy it again")
    _, disk, _, _, entries, directory, start, comment = struct.unpack("<4s4H2LH", end[-22:])
    if (len(end) == 42 and end[:4] == b"PK\6\7") or 0xFFFFFFFF in (directory, start):
        raise _refuse(path, "is in the zip64 format")
    if disk or comment or start + directory + 22 != size:
        raise _refuse(path, "holds something before, after or between what a zip file is made of")
    if entries > MOST_ENTRIES or directory > MOST_ENTRIES * 512:
        raise _refuse(
            path, f"lists {entries:,} entries in {directory:,} bytes, expected at most {MOST_ENTRIES:,}"
        )


def _checked(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, when each of them and all together are fit to be unpacked."""
    entries = archive.infolist()
    if len(entries) > MOST_ENTRIES:
        raise _refuse(path, f"has {len(entries):,} entries, expected at most {MOST_ENTRIES:,}")
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if entry.orig_filename != name or not is_inside(name):
            raise _refuse(path, f"holds the name {entry.orig_filename!r}, which is not inside the bundle")
        if kind not in (0, stat.S_IFREG):
            raise _refuse(path, f"holds {name!r}, which is not a file but a link, a folder or a device")
        if entry.flag_bits & 0x41:
            raise _refuse(path, f"holds {name!r}, which is encrypted")
        if entry.compress_type not in METHODS:
            raise _refuse(path, f"holds {name!r}, which is compressed by method {entry.compress_type}")
        if name.casefold() in seen:  # one file on macOS and Windows
            raise _refuse(path, f"holds {name!r} twice")
        seen.add(name.casefold())
    size, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    if size > min(MOST_BYTES, MOST_RATIO * packed + SLACK):
        raise _refuse(path, f"would unpack from {packed:,} to {size:,} bytes")
    found = {entry.filename: entry for entry in entries}
    if MANIFEST not in found:
        raise _refuse(path, f"holds no {MANIFEST} at its top")
    if found[MANIFEST].file_size > MOST_MANIFEST:
        raise _refuse(path, f"has a {MANIFEST} of {found[MANIFEST].file_size:,} bytes")
    return found


def _check_listed(path: Path, entries: dict[str, zipfile.ZipInfo], manifest: Manifest) -> None:
    """The archive holds what its manifest lists: all of it, nothing else, and no program."""
    listed = {MANIFEST, *manifest.files}
    if strangers := sorted(entries.keys() - listed):
        raise _refuse(path, f"holds {strangers[0]!r}, which its {MANIFEST} does not list")
    if missing := sorted(listed - entries.keys()):
        raise BundleError(f"{path} lacks {missing[0]!r}, which its {MANIFEST} lists; copy it again")
    for name, record in manifest.files.items():
        if entries[name].file_size != record.bytes:
            raise _refuse(
                path, f"holds {name!r} with {entries[name].file_size:,} bytes, expected {record.bytes:,}"
            )
        if any(str(parent) in listed for parent in Path(name).parents):
            raise _refuse(path, f"holds {name!r} in a folder that is a file")
    for artefact in manifest.artefacts:
        if artefact.format == "saved_model":
            raise _refuse(path, "holds a SavedModel, which is a program for TensorFlow")


def _data(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, record: FileRecord | None) -> bytes:
    buffer = io.BytesIO()
    _copy(path, archive, entry, buffer, record)
    return buffer.getvalue()


def _copy(
    path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: BinaryIO, record: FileRecord | None
) -> None:
    """Unpack one entry: at most its declared size, and only what has the recorded hash is taken."""
    digest = hashlib.sha256()
    with archive.open(entry) as source:
        while chunk := source.read(CHUNK):  # zipfile ends at the declared size, and checks the CRC
            digest.update(chunk)
            file.write(chunk)
    if record is not None and digest.hexdigest() != record.sha256:
        raise BundleError(
            f"{path}: {entry.filename} was altered: its sha256 is not the manifest's; copy it again"
        )
