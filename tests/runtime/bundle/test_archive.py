"""A zip from a stranger: opened where it is a sound bundle, refused in words for each way it may not be."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steprnn.runtime import BundleError, Model, load
from steprnn.runtime.bundle import archive
from steprnn.runtime.bundle.manifest import FileRecord, Manifest, is_inside
from steprnn.runtime.cli import main
from steprnn.runtime.files import MANIFEST
from steprnn.runtime.package import zip as zip_package

HOSTILE = json.loads((Path(__file__).parents[2] / "hostile_names.json").read_text(encoding="utf-8"))
Entries = list[tuple[zipfile.ZipInfo, bytes]]


@pytest.fixture(autouse=True)
def nothing_left(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Temporary folders go to a folder of the test's own, which must be empty in the end."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture
def packed(tiny: Path, tmp_path: Path) -> Path:
    return zip_package.write(tiny, tmp_path / "tiny.zip")


def entries_of(path: Path) -> Entries:
    with zipfile.ZipFile(path) as file:
        return [(entry, file.read(entry)) for entry in file.infolist()]


def rewritten(path: Path, change: Callable[[Entries], None], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """The archive with its entries changed by a function; a zip writer takes whatever it is given."""
    entries = entries_of(path)
    change(entries)
    with zipfile.ZipFile(path, "w", method) as file:
        for entry, data in entries:
            file.writestr(entry, data, method)
    return path


def entry(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo("placeholder")
    made.filename = made.orig_filename = name  # its constructor would mend the name
    made.external_attr = mode << 16
    return made


def with_entry(name: str, data: bytes = b"x", mode: int = 0o100644, listed: bool = True) -> Any:
    """Adds an entry, and lists it in the manifest, so that nothing but the attack itself is wrong."""

    def change(entries: Entries) -> None:
        if listed:
            record = json.loads(entries[0][1])
            record["files"][name] = vars(FileRecord(len(data), hashlib.sha256(data).hexdigest()))
            entries[0] = (entries[0][0], json.dumps(record).encode())
        entries.append((entry(name, mode), data))

    return change


def test_a_zip_says_what_its_folder_says(packed: Path, models: dict[str, Model]) -> None:
    for engine, expected in models.items():
        model = load(packed, engine=engine)
        packed_away = packed.rename(packed.with_suffix(".gone"))  # a loaded model needs its file no more
        assert model.manifest == expected.manifest
        for options in ({}, {"temperature": 1.0, "seed": 7}, {"n": 3, "seed": 1, "temperature": 1.0}):
            assert model.generate("分开", 50, **options) == expected.generate("分开", 50, **options)
        packed_away.rename(packed)


def test_equal_bundles_give_equal_bytes(tiny: Path, tmp_path: Path) -> None:
    once, again = (zip_package.write(tiny, tmp_path / name).read_bytes() for name in ("a.zip", "b.zip"))
    assert once == again


def test_load_unpacks_only_what_it_reads(packed: Path, tmp_path: Path, tiny: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    archive.unpack(packed, folder, lambda manifest: ["step.onnx"])
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, "step.onnx"]
    whole = tmp_path / "whole"
    whole.mkdir()
    archive.unpack(packed, whole)
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == {
        p.name: p.read_bytes() for p in tiny.iterdir()
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_would_leave_the_folder(packed: Path, tmp_path: Path, name: str) -> None:
    rewritten(packed, with_entry(name))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        BundleError, match=r"tiny\.zip holds the name .* is not inside the bundle; do not trust it"
    ):
        load(packed)
    assert sorted(tmp_path.rglob("*")) == before


def test_names_that_stay_inside() -> None:
    assert all(
        map(
            is_inside,
            ["a", "a/b.c", "..a", "con_", "saved_model/variables/x.data-00000-of-00001", "字" * 85, "X Y/Z"],
        )
    )


def test_a_name_with_a_nul_byte(packed: Path) -> None:
    data = packed.read_bytes()
    packed.write_bytes(data.replace(b"vocabulary.json", b"vocabulary.jso\0"))
    with pytest.raises(
        BundleError, match=r"tiny\.zip holds the name .*jso.x00., which is not inside the bundle"
    ):
        load(packed)


@pytest.mark.parametrize("mode", [0o120777, 0o040755, 0o020666, 0o010666])
def test_a_link_a_folder_a_device_a_pipe(packed: Path, mode: int) -> None:
    rewritten(packed, with_entry("link", b"/etc/passwd", mode))
    with pytest.raises(
        BundleError, match=r"tiny\.zip holds 'link', which is not a file but a link, a folder or a device; do"
    ):
        load(packed)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["step.onnx", "STEP.onnx", MANIFEST])
def test_a_name_twice(packed: Path, name: str) -> None:
    rewritten(packed, with_entry(name, listed=False))
    with pytest.raises(BundleError, match=rf"tiny\.zip holds '{name}' twice"):
        load(packed)


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x41], ids=["encrypted", "strongly", "both"])
def test_an_encrypted_file(packed: Path, flag: int) -> None:
    data = bytearray(packed.read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= flag
    packed.write_bytes(data)
    with pytest.raises(BundleError, match=r"tiny\.zip holds 'vocabulary\.json', which is encrypted; do not"):
        load(packed)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_whose_ratio_has_no_bound(packed: Path, method: int) -> None:
    rewritten(packed, lambda entries: None, method)
    with pytest.raises(BundleError, match=rf"tiny\.zip holds '.*', which is compressed by method {method}"):
        load(packed)


def test_a_file_that_the_manifest_does_not_list(packed: Path) -> None:
    rewritten(packed, with_entry("setup.py", b"import os", listed=False))
    with pytest.raises(
        BundleError, match=r"tiny.zip holds 'setup.py', which its manifest.json does not list; do"
    ):
        load(packed)


def test_a_listed_file_that_is_not_there(packed: Path) -> None:
    rewritten(packed, lambda entries: entries.pop())
    with pytest.raises(
        BundleError, match=r"tiny.zip lacks 'vocabulary.json', which its manifest.json lists; copy"
    ):
        load(packed)


def test_a_file_that_is_also_a_folder(packed: Path) -> None:
    rewritten(packed, with_entry("step.onnx/weights"))
    with pytest.raises(
        BundleError, match=r"is damaged \(ValueError: 'step.onnx' is a file and a folder\); export again"
    ):
        load(packed)


def test_a_program_for_tensorflow(packed: Path) -> None:
    def change(entries: Entries) -> None:
        with_entry("saved_model/saved_model.pb")(entries)
        record = json.loads(entries[0][1])
        record["artefacts"].append(
            {
                "name": "saved_model-float32",
                "format": "saved_model",
                "variant": "float32",
                "method": "",
                "path": "saved_model",
            }
        )
        entries[0] = (entries[0][0], json.dumps(record).encode())

    rewritten(packed, change)
    with pytest.raises(
        BundleError, match=r"tiny\.zip holds a SavedModel, which is a program for TensorFlow; do"
    ):
        load(packed)


def altered(name: str, change: Callable[[bytes], bytes]) -> Callable[[Entries], None]:
    def apply(entries: Entries) -> None:
        entries[:] = [(e, change(d) if e.filename == name else d) for e, d in entries]

    return apply


def test_a_file_of_another_hash_or_size(packed: Path) -> None:
    rewritten(packed, altered("vocabulary.json", lambda data: data[:-3] + b" }\n"))
    with pytest.raises(BundleError, match=r"tiny.zip: vocabulary.json was altered: its sha256 is not"):
        load(packed)
    rewritten(packed, altered("vocabulary.json", lambda data: data + b" "))
    with pytest.raises(
        BundleError, match=r"tiny.zip holds 'vocabulary.json' with 230 bytes, expected 229; do"
    ):
        load(packed)


def test_no_manifest_or_one_that_is_in_a_folder(packed: Path, tmp_path: Path) -> None:
    rewritten(packed, lambda entries: entries.pop(0))
    with pytest.raises(
        BundleError, match=r"tiny.zip holds no manifest.json at its top; .*: steprnn package$"
    ):
        load(packed)


def test_a_bomb_is_refused_before_it_is_unpacked(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten(packed, with_entry("zeros", bytes(50_000_000)))
    monkeypatch.setattr(archive, "_copy", lambda *arguments: pytest.fail("something was unpacked"))
    with pytest.raises(BundleError, match=r"tiny.zip would unpack from [\d,]+ to 50,0[\d,]+ bytes; do"):
        load(packed)


def test_a_manifest_that_is_a_bomb(packed: Path) -> None:
    rewritten(packed, altered(MANIFEST, lambda data: data + b" " * 5_000_000))
    with pytest.raises(BundleError, match=r"tiny.zip (has a manifest.json of 5,00[\d,]+ bytes|would unpack)"):
        load(packed)


def test_a_size_that_is_understated(packed: Path) -> None:
    """The directory says 229 bytes, and the data goes on: no more than that is ever unpacked."""
    rewritten(packed, altered("vocabulary.json", lambda data: data + bytes(30_000_000)))
    data = bytearray(packed.read_bytes())
    place = data.index(b"vocabulary.json", data.index(b"PK\1\2")) - 46
    data[place + 24 : place + 28] = struct.pack("<L", 229)
    packed.write_bytes(data)
    with pytest.raises(BundleError, match=r"tiny.zip is a damaged zip \(Bad CRC-32.*\); copy it again$"):
        load(packed)


def test_too_many_entries(packed: Path) -> None:
    rewritten(packed, lambda entries: entries.extend((entry(f"{i}"), b"") for i in range(1001)))
    with pytest.raises(
        BundleError, match=r"tiny.zip lists 1,009 entries in [\d,]+ bytes, expected at most 1,000"
    ):
        load(packed)


def test_a_directory_that_lists_more_than_it_counts(packed: Path) -> None:
    rewritten(packed, lambda entries: entries.extend((entry(f"{i}"), b"") for i in range(1001)))
    data = bytearray(packed.read_bytes())
    data[-14:-10] = struct.pack("<2H", 8, 8)
    packed.write_bytes(data)
    with pytest.raises(BundleError, match=r"tiny\.zip has 1,009 entries, expected at most 1,000"):
        load(packed)


def test_a_huge_directory_is_not_even_read(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten(packed, lambda entries: entries.extend((entry("n" * 60_000 + str(i)), b"") for i in range(20)))
    monkeypatch.setattr(zipfile, "ZipFile", lambda *arguments: pytest.fail("the directory was read"))
    with pytest.raises(BundleError, match=r"tiny.zip lists 28 entries in 1,2[\d,]+ bytes"):
        load(packed)


@pytest.mark.parametrize(
    "change",
    [lambda data: data + b"more", lambda data: b"#!/bin/sh\n" + data, lambda data: data[:-2] + b"\1\0c"],
)
def test_something_before_or_after(packed: Path, change: Callable[[bytes], bytes]) -> None:
    packed.write_bytes(change(packed.read_bytes()))
    with pytest.raises(
        BundleError, match=r"tiny.zip (holds something before, after|is not a bundle in a zip)"
    ):
        load(packed)


def test_only_a_packaged_bundle_is_replaced(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A corpus may be a zip of the same name."""
    out = tmp_path / "lyrics.zip"
    argv = ["package", str(tiny), "--as", "zip", "--out", str(out)]
    for data in (b"PK no zip", b""):
        out.write_bytes(data)
        assert main(argv) == 2
        words = f"{out} exists and holds no bundle; choose another --out, nothing was changed"
        assert capsys.readouterr().err == f"steprnn: {words}\n"
        assert out.read_bytes() == data
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("lyrics.txt", "a text")
    assert main(argv) == 2
    out.unlink()
    assert main(argv) == 0
    written = out.read_bytes()
    assert main(argv) == 0
    assert out.read_bytes() == written


def test_zip64(packed: Path) -> None:
    """A second end record would overrule the first, which is the one that was looked at."""
    data = packed.read_bytes()
    locator = b"PK\6\7" + bytes(16)
    packed.write_bytes(data[:-22] + locator + data[-22:])
    with pytest.raises(
        BundleError, match=r"tiny\.zip is in the zip64 format; do not trust it, or pack the bundle with: "
    ):
        load(packed)


def test_a_zip_is_read_in_memory(
    packed: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder is made, so that a process that is killed leaves none, and errors name the zip."""
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *name: pytest.fail("a folder was made"))
    for engine in ("onnx", "litert"):
        assert load(packed, engine=engine).generate("分", 20) == load(tiny, engine=engine).generate("分", 20)
    held = archive.read(packed, lambda manifest: ["vocabulary.json"])
    assert str(held / "vocabulary.json") == f"{packed}/vocabulary.json"
    assert (held / "vocabulary.json").read_bytes() == (tiny / "vocabulary.json").read_bytes()
    assert held.is_dir()
    assert not (held / "step.onnx").exists()
    with pytest.raises(BundleError, match=r"tiny\.zip/step\.onnx is missing; copy the bundle again"):
        Manifest.read(held).verify(held, ["step.onnx"])


# What is just inside the limits.


def unpacked(packed: Path) -> set[str]:
    with tempfile.TemporaryDirectory() as folder:
        archive.unpack(packed, Path(folder))
        return {path.name for path in Path(folder).iterdir()}


def refusal(packed: Path) -> str:
    with pytest.raises(BundleError) as raised:
        unpacked(packed)
    return str(raised.value).removeprefix(f"{packed} ").split("; ")[0]


def with_empty(number: int) -> Callable[[Entries], None]:
    """Adds so many empty files that the manifest lists."""

    def change(entries: Entries) -> None:
        record = json.loads(entries[0][1])
        empty = vars(FileRecord(0, hashlib.sha256(b"").hexdigest()))
        record["files"] |= {f"{i}": empty for i in range(number)}
        entries[0] = (entries[0][0], json.dumps(record).encode())
        entries.extend((entry(f"{i}"), b"") for i in range(number))

    return change


def test_a_thousand_entries_are_not_too_many(packed: Path) -> None:
    rewritten(packed, with_empty(1000 - 8))
    assert len(unpacked(packed)) == 1000


def test_a_thousand_and_one_are(packed: Path) -> None:
    rewritten(packed, with_empty(1001 - 8))
    assert re.fullmatch(r"lists 1,001 entries in [\d,]+ bytes, expected at most 1,000", refusal(packed))


def test_a_directory_of_so_many_bytes(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """512 of them for each entry that there may be."""
    (directory,) = struct.unpack("<L", packed.read_bytes()[-10:-6])
    monkeypatch.setattr(archive, "MOST_ENTRIES", 8)

    def padded(size: int) -> Callable[[Entries], None]:
        return lambda entries: setattr(entries[0][0], "comment", b" " * (size - directory))

    rewritten(packed, padded(8 * 512))
    assert len(unpacked(packed)) == 8
    rewritten(packed, padded(8 * 512 + 1))
    assert refusal(packed) == "lists 8 entries in 4,097 bytes, expected at most 8"


@pytest.mark.parametrize("limit", ["MOST_BYTES", "SLACK"])
def test_the_size_of_all_together(packed: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    size, bytes_packed = sum(len(data) for _, data in entries_of(packed)), packed.stat().st_size
    monkeypatch.setattr(archive, "MOST_RATIO", 200 if limit == "MOST_BYTES" else 0)
    monkeypatch.setattr(archive, limit, size)
    assert unpacked(packed)
    monkeypatch.setattr(archive, limit, size - 1)
    assert refusal(packed) == f"would unpack from {bytes_packed:,} to {size:,} bytes"


def test_two_hundred_times_its_own_size_and_a_megabyte_more(packed: Path, tiny: Path) -> None:
    fits = []
    for zeros in range(7_000_000, 12_000_000, 1_000_000):
        rewritten(zip_package.write(tiny, packed), with_entry("zeros", bytes(zeros)))
        size, bytes_packed = sum(len(data) for _, data in entries_of(packed)), packed.stat().st_size
        fits.append(size <= 200 * bytes_packed + 2**20)
        if fits[-1]:
            assert "zeros" in unpacked(packed)
        else:
            assert refusal(packed) == f"would unpack from {bytes_packed:,} to {size:,} bytes"
    assert True in fits[:-1]
    assert False in fits


def test_the_size_of_the_manifest(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(entries_of(packed)[0][1])
    monkeypatch.setattr(archive, "MOST_MANIFEST", size)
    assert unpacked(packed)
    monkeypatch.setattr(archive, "MOST_MANIFEST", size - 1)
    assert refusal(packed) == f"has a manifest.json of {size:,} bytes"


def test_the_size_of_the_archive(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = packed.stat().st_size
    monkeypatch.setattr(archive, "MOST_BYTES", size - 1)
    assert refusal(packed) == f"has {size:,} bytes, expected at most {size - 1:,}"


def test_an_archive_of_just_the_largest_size_is_looked_into(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", packed.stat().st_size)
    assert refusal(packed).startswith("would unpack from ")


def test_an_empty_zip(tmp_path: Path) -> None:
    """Twenty-two bytes, and nothing that they end."""
    path = tmp_path / "empty.zip"
    with zipfile.ZipFile(path, "w"):
        pass
    assert path.stat().st_size == 22
    assert refusal(path) == "holds no manifest.json at its top"


def test_files_in_folders(packed: Path, tmp_path: Path) -> None:
    rewritten(packed, with_entry("a/b/c.bin", b"deep"))
    folder = tmp_path / "unpacked"
    folder.mkdir()
    archive.unpack(packed, folder)
    assert (folder / "a" / "b" / "c.bin").read_bytes() == b"deep"


def test_a_zip_of_a_system_without_modes(packed: Path) -> None:
    """No kind of file is told, as Windows does."""

    def change(entries: Entries) -> None:
        for info, _ in entries:
            info.external_attr = 0

    rewritten(packed, change)
    assert MANIFEST in unpacked(packed)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (4, b"\1\0", "holds something before, after or between what a zip file is made of"),  # another disk
        (20, b"\1\0", "holds something before, after or between what a zip file is made of"),  # a comment
        (12, b"\xff" * 4, "is in the zip64 format"),  # the size of the directory
        (16, b"\xff" * 4, "is in the zip64 format"),  # its offset
        (16, b"\0\0\0\x80", "holds something before, after or between what a zip file is made of"),
    ],
)
def test_an_end_record_that_tells_something_else(packed: Path, place: int, value: bytes, words: str) -> None:
    data = packed.read_bytes()
    begin = len(data) - 22 + place
    packed.write_bytes(data[:begin] + value + data[begin + len(value) :])
    assert refusal(packed) == words


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip file at all, but long enough to be one"])
def test_no_zip_at_all(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"x.zip is not a bundle in a zip file, or was cut short; copy"):
        load(path)


def test_any_damage_is_one_error(packed: Path, models: dict[str, Model]) -> None:
    """Bytes that are changed or cut at random: refused in words, or without any effect."""
    whole = packed.read_bytes()
    expected = models["litert"].generate("分开", 20)
    draw = random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 1, 3, 30))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        if draw.random() < 0.2:
            del data[draw.randrange(len(data)) :]
        packed.write_bytes(data)
        with contextlib.suppress(BundleError):
            assert load(packed).generate("分开", 20) == expected


def test_a_graph_that_reads_other_files(packed: Path, tmp_path: Path) -> None:
    """ONNX may keep weights in files beside it; a path out of the folder must not be followed."""
    onnx = pytest.importorskip("onnx")
    (tmp_path / "secret").write_bytes(bytes(8 * 21 * 4))

    def change(data: bytes) -> bytes:
        graph = onnx.load(io.BytesIO(data))
        tensor = max(graph.graph.initializer, key=lambda i: len(i.raw_data))
        size = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", str(tmp_path / "secret")), ("offset", "0"), ("length", str(size))):
            tensor.external_data.add(key=key, value=value)
        return graph.SerializeToString()

    def relisted(entries: Entries) -> None:
        altered("step.onnx", change)(entries)
        record = json.loads(entries[0][1])
        data = next(d for e, d in entries if e.filename == "step.onnx")
        record["files"]["step.onnx"] = {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        entries[0] = (entries[0][0], json.dumps(record).encode())

    rewritten(packed, relisted)
    with pytest.raises(BundleError, match=r"step.onnx has weights in another file, where a bundle has none"):
        load(packed, engine="onnx")
