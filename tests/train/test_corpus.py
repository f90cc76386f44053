"""Where a corpus comes from, how it is prepared, and the words for what is wrong with it."""

from __future__ import annotations

import gzip
import hashlib
import re
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steprnn.runtime.errors import CorpusError
from steprnn.train import corpus


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_line_breaks_become_spaces_and_the_first_characters_are_kept() -> None:
    assert corpus.prepare("山\n水\r\n风\r月") == "山 水 风 月"
    assert corpus.prepare("山\n水月", characters=3) == "山 水"
    assert corpus.prepare("山\n水", keep_line_breaks=True) == "山\n水"
    assert corpus.prepare("\ufeff山") == "山"


def test_the_book_s_length_is_the_default() -> None:
    assert len(corpus.prepare("山水" * 6_000)) == 10_000
    assert len(corpus.prepare("山水" * 6_000, characters=0)) == 12_000


@given(st.text(), st.integers(0, 50))
def test_preparation_changes_nothing_but_line_breaks_and_length(text: str, characters: int) -> None:
    prepared = corpus.prepare(text, characters=characters)
    assert "\n" not in prepared
    assert "\r" not in prepared
    assert len(prepared) <= (characters or len(text))
    whole = re.sub("\r\n|\r|\n", " ", text.removeprefix("\ufeff"))
    assert whole.startswith(prepared)
    assert prepared == whole or len(prepared) == characters


@given(st.text(min_size=1, max_size=40), st.floats(0, 0.99))
def test_a_split_loses_nothing(text: str, holdout: float) -> None:
    seen, unseen = corpus.Corpus("x", text).split(holdout)
    assert seen + unseen == text
    assert len(unseen) == round(len(text) * holdout)


def test_the_same_text_from_every_kind_of_file(tmp_path: Path) -> None:
    data = "山外\n有雨".encode()
    plain = write(tmp_path / "a.txt", data)
    packed = write(tmp_path / "a.txt.gz", gzip.compress(data, mtime=0))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", data)
        archive.writestr("__MACOSX/._a.txt", b"\x00")
        archive.writestr("readme.md", "not text to train on")
    for source in (plain, packed, tmp_path / "a.zip", str(plain)):
        assert corpus.load(source).text == "山外 有雨"
    assert corpus.load(plain).sha256 == hashlib.sha256("山外 有雨".encode()).hexdigest()
    assert corpus.load(plain).name == "a.txt"


def test_a_url_goes_through_keras_and_keeps_two_files_of_one_name_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path / "home"))
    for name, text in (("one", "山"), ("two", "水")):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.txt", text.encode())
    urls = [(tmp_path / name / "a.txt").as_uri() for name in ("one", "two")]
    assert [corpus.load(url).text for url in urls] == ["山", "水"]
    right = hashlib.sha256("水".encode()).hexdigest()
    assert corpus.load(urls[1], sha256=right).text == "水"
    with pytest.raises(CorpusError, match=r"could not be fetched .*check the address and --sha256"):
        corpus.load(urls[0], sha256=right)
    with pytest.raises(CorpusError, match=r"none\.txt could not be fetched"):
        corpus.load((tmp_path / "none.txt").as_uri())


def test_the_embedded_lyrics_are_found_and_are_what_they_should_be() -> None:
    lyrics = corpus.load()
    assert lyrics.name == "lyrics.txt"
    assert len(lyrics.text) == 10_000
    assert "分开" in lyrics.text
    assert "不分开" in lyrics.text


def test_lyrics_beside_the_package_come_before_those_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "steprnn" / "train"  # where an installed wheel has them
    package.mkdir(parents=True)
    monkeypatch.setattr(corpus, "__file__", str(package / "corpus.py"))
    with pytest.raises(CorpusError, match=r"lyrics\.txt is missing; install steprnn again, or give --corpus"):
        corpus.embedded()
    write(package / "lyrics.txt", b"x")
    assert corpus.embedded() == package / "lyrics.txt"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", "山水".encode() + b"\xff", r"a\.txt is not UTF-8: byte 0xff at offset 6; convert it"),
        ("a.txt", "ab不分开".encode("gb18030"), r"not UTF-8: byte 0xb2 at offset 2"),
        ("a.txt", b"", r"a\.txt is empty; expected text to train on"),
        ("a.txt", b" \n\r\n", r"a\.txt has nothing but white space in its first 3 char"),
        ("a.gz", b"no gzip", r"a\.gz is not a whole gzip file .*get the file again"),
        ("a.gz", gzip.compress(b"text" * 99, mtime=0)[:-9], r"a\.gz is not a whole gzip file"),
        ("a.zip", b"PK no zip", r"a\.zip is not a whole zip file .*get the file again"),
    ],
)
def test_the_words_for_a_bad_file(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    with pytest.raises(CorpusError, match=words):
        corpus.load(write(tmp_path / name, data))


def test_the_words_for_a_zip_without_one_text(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("a.md", "x")
    with pytest.raises(CorpusError, match=r"none\.zip holds no \.txt file; expected exactly one"):
        corpus.load(tmp_path / "none.zip")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.txt", "x")
        archive.writestr("b.txt", "y")
    with pytest.raises(
        CorpusError, match=r"two\.zip holds 2 text files \(a\.txt, b\.txt\); expected exactly"
    ):
        corpus.load(tmp_path / "two.zip")


def test_the_words_for_a_missing_file_a_folder_and_another_hash(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"none\.txt does not exist; expected a \.txt, \.zip or \.gz file"):
        corpus.load(tmp_path / "none.txt")
    with pytest.raises(CorpusError, match="is a folder; expected a"):
        corpus.load(tmp_path)
    path = write(tmp_path / "a.txt", b"abc")
    right = hashlib.sha256(b"abc").hexdigest()
    assert corpus.load(path, sha256=right.upper()).text == "abc"
    with pytest.raises(CorpusError, match=f"a.txt has the sha256 {right}; expected {'0' * 64}: get the file"):
        corpus.load(path, sha256="0" * 64)
