"""The command line: text on stdout, everything else on stderr, and one line for whatever goes wrong.

Run as a script, this file brings the `--help` texts in docs/commands.md up to date.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest

from steprnn.runtime import BundleError, Model, cli
from steprnn.runtime.bundle.manifest import FileRecord
from steprnn.runtime.commands import demo
from steprnn.runtime.engines.native import library
from steprnn.runtime.errors import UsageError
from steprnn.runtime.origin import install, upgrade

COMMANDS = tuple(
    "train export check inspect generate score embed map bench models package serve demo".split()
)
TRAINING = ("tensorflow", "keras", "tf2onnx", "onnx", "matplotlib")
ENGINES = ("onnxruntime", "ai_edge_litert")
COMMANDS_PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
BLOCK = re.compile(r"(<!-- help: (\w+) -->\n```text\n)(.*?)(```\n<!-- /help -->)", re.DOTALL)

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Capture = pytest.CaptureFixture[str]


def told(err: str) -> str:
    """The one line of stderr that tells what is wrong, after any lines that tell how far it has come."""
    assert err.endswith("\n")
    *progress, line = err.splitlines()
    assert all(re.match(r"\[ *\d+\.\d s\] ", said) for said in progress), err
    assert line.startswith("steprnn: "), err
    return line.removeprefix("steprnn: ")


@pytest.fixture
def refusal(capfd: Capture) -> Callable[..., str]:
    """Run a command that must fail with this code; return the one line it says, without `steprnn: `."""

    def run(code: int, *argv: object) -> str:
        assert cli.main([str(a) for a in argv]) == code
        out, err = capfd.readouterr()
        assert out == ""
        return told(err)

    return run


# --help and missing extras


def test_help_works_without_any_extra(steprnn: Run, without: Callable[..., dict[str, str]]) -> None:
    bare = without(*TRAINING, *ENGINES)
    result = steprnn("--help", environment=bare)
    assert (result.returncode, result.stderr) == (0, "")
    listed = re.findall(r"^    (\w+)  ", result.stdout, re.MULTILINE)
    assert set(listed) == {point.name for point in entry_points(group=cli.GROUP)} >= set(COMMANDS)
    for command in COMMANDS:
        result = steprnn(command, "--help", environment=bare)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith(f"usage: steprnn {command} ")
        assert f"example:\n  steprnn {command}" in result.stdout


@pytest.mark.parametrize(
    ("argv", "gone", "words"),
    [
        (["train"], ("tensorflow",), f"tensorflow is not installed; run: {install('train')}"),
        (["train"], ("matplotlib",), f"matplotlib is not installed; run: {install('train')}"),
        (
            ["export", "c", "--out", "b"],
            ("tf2onnx",),
            f"tf2onnx is not installed; run: {install('export')}",
        ),
        (["demo"], ("tensorflow",), f"tensorflow is not installed; run: {install('all')}"),
        (["serve", "BUNDLE"], ("uvicorn",), f"uvicorn is not installed; run: {install('serve')}"),
        (["check", "BUNDLE"], ENGINES, f"an engine is not installed; run: {install('onnx')}"),
        (
            ["generate", "BUNDLE", "-p", "分"],
            ENGINES,
            f"the engine 'litert' is not installed; run: {install('litert')}",
        ),
        (
            ["generate", "BUNDLE", "-p", "分", "--engine", "onnx"],
            ("onnxruntime",),
            f"the engine 'onnx' is not installed; run: {install('onnx')}",
        ),
    ],
)
def test_a_missing_extra_is_told_with_the_line_that_installs_it(
    steprnn: Run,
    without: Callable[..., dict[str, str]],
    tiny: Path,
    tmp_path: Path,
    argv: list[str],
    gone: tuple[str, ...],
    words: str,
) -> None:
    argv = [str(tiny) if a == "BUNDLE" else a for a in argv]
    result = steprnn(*argv, environment=without(*gone), cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert told(result.stderr) == words


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["generate", "b", "-p", "分", "-f", "b.txt"],
            "argument -f/--file: not allowed with argument -p/--prompt; `steprnn generate --help` tells",
        ),
        (["generate", "b", "-p", "分", "-n", "ten"], "argument -n/--n-predict: invalid int value: 'ten'"),
        (["generate", "b", "-p", "分", "--variant", "int4"], "argument --variant: invalid choice: 'int4'"),
        (
            ["check", "b", "--loud"],
            "unrecognized arguments: --loud; `steprnn check --help` tells the flags",
        ),
        (["generate", "b", "--prmpt", "分"], "unrecognized arguments: --prmpt 分; `steprnn generate --help`"),
    ],
)
def test_usage_is_told_in_one_line(refusal: Callable[..., str], argv: list[str], words: str) -> None:
    assert refusal(2, *argv).startswith(words)


@pytest.mark.parametrize("name", ["sing", "engine", "_engine", "__init__", "__main__", "generate.py", ""])
def test_what_is_no_command_is_told_with_those_that_are(refusal: Callable[..., str], name: str) -> None:
    line = refusal(2, name)
    assert line.startswith(f"argument COMMAND: invalid choice: {name!r} (choose from ")
    assert re.findall(r"\w+", line.partition("choose from")[2].partition(")")[0]) == list(COMMANDS)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("trian", "did you mean train?"),
        ("generat", "did you mean generate?"),
        ("zzz", "`steprnn --help` tells"),
    ],
)
def test_a_mistyped_command_is_told_the_nearest(refusal: Callable[..., str], name: str, way: str) -> None:
    assert refusal(2, name, "--out", "x").partition("); ")[2].startswith(way)


def test_every_module_of_commands_is_one() -> None:
    """So that no other is taken for one: they are found by their names."""
    folder = Path(cli.__file__).parent / "commands"
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    listed = {point.value for point in entry_points(group=cli.GROUP)}
    assert {f"steprnn.runtime.commands.{name}" for name in files} <= listed


def test_no_command_at_all_prints_the_help(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(cli.WIDTH + 2))
    assert help_of("steprnn").startswith("usage: steprnn [-h] [--version] COMMAND ...")
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert not ended.value.code
    assert capfd.readouterr() == (help_of("steprnn"), "")


def test_the_version(steprnn: Run) -> None:
    result = steprnn("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"steprnn {version('steprnn')}\n", "")


@pytest.mark.parametrize("argv", [["--version"], [], ["models", "--help"], ["sing"]])
def test_python_m_is_the_same_command(steprnn: Run, argv: list[str]) -> None:
    command = [sys.executable, "-m", "steprnn.runtime", *argv]
    result = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
    expected = steprnn(*argv)
    assert (result.returncode, result.stdout, result.stderr) == (
        expected.returncode,
        expected.stdout,
        expected.stderr,
    )


# generate


def test_text_is_all_there_is_on_stdout(steprnn: Run, tiny: Path, models: dict[str, Model]) -> None:
    expected = models["litert"].generate("分开", 30)
    result = steprnn("generate", tiny, "-p", "分开", "-n", 30)
    assert result.returncode == 0
    assert result.stdout == expected + "\n"
    assert re.fullmatch(r"greedy, litert float32, 30 characters in \d+\.\d ms\n", result.stderr)


@pytest.mark.parametrize(
    ("shown", "others"),
    [
        ("-n 7", ["--predict 7", "--max-tokens 7", "--max_tokens 7", "--max-new-tokens 7", "--n_predict 7"]),
        ("--temp 0.5", ["--temperature 0.5"]),
        ("--top-k 3", ["--top_k 3"]),
        ("--top-p 0.5", ["--top_p 0.5"]),
        ("--min-p 0.5", ["--min_p 0.5"]),
        ("--repeat-penalty 2", ["--repeat_penalty 2", "--repetition-penalty 2", "--repetition_penalty 2"]),
        ("--repeat-last-n 3", ["--repeat_last_n 3"]),
        ("--seed 7", ["-s 7"]),
        ("--count 2", ["--n 2"]),
        ("--threads 2", ["-t 2"]),
    ],
)
def test_flags_have_the_names_of_other_programs_too(shown: str, others: list[str]) -> None:
    def parsed(flags: str) -> dict[str, Any]:
        return vars(cli.parser(["generate"]).parse_args(["generate", "b", "-p", "分", *flags.split()]))

    assert parsed(shown) != parsed("")
    for flags in others:
        assert parsed(flags) == parsed(shown)
        assert flags.split()[0] not in re.findall(r"(?<=\s)-[\w-]+", help_of("generate"))


def test_flags_of_serve_have_the_names_of_other_servers_too() -> None:
    def parsed(*flags: str) -> dict[str, Any]:
        return vars(cli.parser(["serve"]).parse_args(["serve", "b", *flags]))

    for flag in ("-a", "--alias", "--served-model-name"):
        assert parsed(flag, "it") == parsed("--name", "it") != parsed()
    for flag in ("-np", "--parallel"):
        assert parsed(flag, "3") == parsed("--batch", "3") != parsed()


@pytest.mark.parametrize(
    ("flags", "given"),
    [
        ([], "分开\n"),
        (["-f", "-"], "分开"),
        (["-f", "FILE"], "分开\r\n"),
        (["--file", "FILE"], "\ufeff分开\n"),
    ],
)
def test_a_prompt_from_a_file_or_a_pipe(
    steprnn: Run, tiny: Path, tmp_path: Path, flags: list[str], given: str
) -> None:
    (tmp_path / "prompt.txt").write_bytes(given.encode())
    flags = [str(tmp_path / "prompt.txt") if flag == "FILE" else flag for flag in flags]
    result = steprnn("generate", tiny, *flags, "-n", 5, input="" if "FILE" in flags else given)
    assert (result.returncode, result.stdout) == (0, "分开 云不走月\n"), result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "FILE does not exist; expected a UTF-8 file with the prompt"),
        (b"", "FILE is empty; expected a prompt: -p TEXT, -f FILE or text on stdin"),
        ("分开".encode("gbk"), "FILE is not UTF-8, first at byte 0; run: iconv -f ENCODING -t UTF-8 "),
        ("分开".encode("utf-16"), "FILE is UTF-16, expected UTF-8; run: iconv -f UTF-16 -t UTF-8 "),
    ],
)
def test_a_prompt_that_cannot_be_read(
    refusal: Callable[..., str], tiny: Path, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "prompt.txt"
    if content is not None:
        path.write_bytes(content)
    assert refusal(2, "generate", tiny, "-f", path).startswith(words.replace("FILE", str(path), 1))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_texts_in_utf_16(refusal: Callable[..., str], tiny: Path, tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "春 天.txt"
    path.write_bytes("\ufeff分开\n".encode(encoding))
    way = f"run: iconv -f UTF-16 -t UTF-8 '{path}' > OTHER"
    assert refusal(2, "score", tiny, path) == f"{path} is UTF-16, expected UTF-8; {way}"


def test_nothing_on_stdin_is_told(steprnn: Run, tiny: Path) -> None:
    result = steprnn("generate", tiny, input="")
    assert (result.returncode, result.stdout) == (2, "")
    assert told(result.stderr) == "stdin is empty; expected a prompt: -p TEXT, -f FILE or text on stdin"


def test_nobody_is_waited_for_at_a_keyboard(steprnn: Run, tiny: Path) -> None:
    pty = pytest.importorskip("pty")
    keyboard, terminal = pty.openpty()
    result = steprnn("generate", tiny, stdin=terminal)
    os.close(keyboard)
    os.close(terminal)
    assert (result.returncode, result.stdout) == (2, "")
    assert told(result.stderr) == "the prompt is missing; give it with -p TEXT, -f FILE or on stdin"


@pytest.mark.parametrize("name", ["model.keras", "old.h5", "春 天.keras"])
def test_a_keras_file_is_told_the_way_to_a_bundle(
    refusal: Callable[..., str], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"")
    stem = name.partition(".")[0]
    way = shlex.join(["steprnn", "export", str(tmp_path / name), "--out", f"{tmp_path / stem}.bundle"])
    assert (
        refusal(1, "generate", tmp_path / name, "-p", "分")
        == f"{tmp_path / name} is a Keras model; run: {way}"
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("steprnn gen", ["generate"]),
        ("steprnn generate b --repeat-", ["--repeat-last-n", "--repeat-penalty"]),
        ("steprnn generate b --engine l", ["litert"]),
    ],
)
def test_a_shell_completes_commands_and_flags(
    steprnn: Run, tmp_path: Path, line: str, expected: list[str]
) -> None:
    pytest.importorskip("argcomplete")
    out = tmp_path / "completions"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(out),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    result = steprnn(environment=os.environ | asked)
    assert result.returncode == 0, result.stderr
    assert sorted(word.strip() for word in out.read_text().split("\n")) == expected


def test_engines_do_not_greet(tiny: Path) -> None:
    """Nor where a program of somebody's own loads a model; what else is written then comes through."""
    code = (
        "import os\nfrom steprnn.runtime import load\nfrom steprnn.runtime.quiet import without_lines\n"
        f"for engine in ('litert', 'onnx'): load({str(tiny)!r}, engine=engine)\n"
        "with without_lines(b'INFO: '): os.write(2, b'INFO: a\\nb\\nINFO: c\\n')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert (result.stdout, result.stderr) == ("", "b\n")


@pytest.mark.parametrize("engine", ["litert", "onnx"])
def test_every_flag_reaches_the_sampler(
    tiny: Path, models: dict[str, Model], engine: str, capfd: Capture
) -> None:
    options: list[tuple[list[str], dict[str, Any]]] = [
        (["--temp", "1.2"], {"temperature": 1.2}),
        (["--temp", "9", "--top-k", "3"], {"temperature": 9.0, "top_k": 3}),
        (["--temp", "9", "--top-p", "0.5"], {"temperature": 9.0, "top_p": 0.5}),
        (["--temp", "9", "--min-p", "0.01"], {"temperature": 9.0, "min_p": 0.01}),
        (["--repeat-penalty", "9", "--repeat-last-n", "3"], {"repeat_penalty": 9.0, "repeat_last_n": 3}),
        (["--stop", "月", "--stop", "雨"], {"stop": ["月", "雨"]}),
    ]
    texts = set()
    for flags, keywords in options:
        argv = ["generate", str(tiny), "-p", "分开", "-n", "40", "--seed", "7", "--engine", engine, *flags]
        assert cli.main(argv) == 0
        out, err = capfd.readouterr()
        assert out == models[engine].generate("分开", 40, seed=7, **keywords) + "\n"
        assert err.startswith(
            f"seed 7, {engine} float32, " if "--temp" in flags else f"greedy, {engine} float32, "
        )
        texts.add(out)
    assert len(texts) == len(options)


def test_int8(tiny: Path, capfd: Capture) -> None:
    assert cli.main(["generate", str(tiny), "-p", "分开", "--engine", "onnx", "--variant", "int8"]) == 0
    out, err = capfd.readouterr()
    assert len(out) == 53
    assert err.startswith("greedy, onnx int8, 50 characters in ")


def test_a_seed_that_was_not_given_is_told_and_repeats_the_text(tiny: Path, capfd: Capture) -> None:
    argv = ["generate", str(tiny), "-p", "分开", "--temp", "3"]
    assert cli.main(argv) == 0
    out, err = capfd.readouterr()
    seed = re.match(r"seed (\d+), ", err)
    assert seed
    assert cli.main([*argv, "--seed", seed[1]]) == 0
    assert capfd.readouterr().out == out


def test_count_writes_one_text_a_line(tiny: Path, models: dict[str, Model], capfd: Capture) -> None:
    argv = ["generate", str(tiny), "-p", "分开", "-n", "20", "--temp", "1.5", "--seed", "3", "--count", "5"]
    assert cli.main(argv) == 0
    out, err = capfd.readouterr()
    assert out.splitlines() == [
        models["litert"].generate("分开", 20, temperature=1.5, seed=seed) for seed in range(3, 8)
    ]
    assert err.startswith("seed 3, litert float32, 100 characters in ")


def test_unknown_characters_are_named_or_skipped(
    tiny: Path, models: dict[str, Model], capfd: Capture, refusal: Callable[..., str]
) -> None:
    assert refusal(2, "generate", tiny, "-p", "分爱开!") == (
        "'爱' '!' not among the 21 characters of the vocabulary; "
        "choose others, or skip them with --unknown skip"
    )
    assert cli.main(["generate", str(tiny), "-p", "分爱开!", "-n", "20", "--unknown", "skip"]) == 0
    following = models["litert"].generate("分开", 20).removeprefix("分开")
    assert capfd.readouterr().out == "分爱开!" + following + "\n"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-p", ""], "the prompt is empty; expected at least one character to begin with"),
        (
            ["-p", "爱", "--unknown", "skip"],
            "the prompt has no character of the vocabulary; expected at least one character to begin with",
        ),
        (["-p", "分\udcff"], "the prompt is not UTF-8; expected UTF-8 on the command line"),
        (["-p", "分", "-n", "-1"], "length is -1; expected at least 0"),
        (["-p", "分", "-n", "-1", "--count", "2"], "length is -1; expected at least 0"),
        (["-p", "分", "--count", "0"], "n is 0; expected at least 1"),
        (["-p", "分", "--temp", "-1"], "temperature is -1.0; expected a number from 0 to 1000"),
        (["-p", "分", "--temp", "nan"], "temperature is nan; expected a number from 0 to 1000"),
        (["-p", "分", "--top-k", "-1"], "top_k is -1; expected a whole number from 0 to 2147483647"),
        (["-p", "分", "--top-p", "0"], "top_p is 0.0; expected a number above 0 and at most 1"),
        (["-p", "分", "--min-p", "2"], "min_p is 2.0; expected a number from 0 to 1"),
        (["-p", "分", "--repeat-penalty", "0"], "repeat_penalty is 0.0; expected a number from 0.01 to 100"),
        (
            ["-p", "分", "--repeat-last-n", "-1"],
            "repeat_last_n is -1; expected a whole number from 0 to 2147483647",
        ),
        (["-p", "分", "--seed", "-1"], "seed is -1; expected a whole number, at least 0"),
        (["-p", "分", "--stop", ""], "a stop string is empty; expected at least one character"),
        (["-p", "分", "--threads", "0"], "threads is 0; expected at least 1"),
    ],
)
def test_flags_that_cannot_be_meant(
    tiny: Path, refusal: Callable[..., str], flags: list[str], words: str
) -> None:
    assert refusal(2, "generate", tiny, *flags) == words


@pytest.mark.parametrize("length", ["-n 200000", "-n 50 --count 2000"])
def test_a_reader_that_leaves_is_no_error_to_talk_about(tiny: Path, length: str) -> None:
    program = shlex.join(
        [str(Path(sys.executable).with_name("steprnn")), "generate", str(tiny), "-p", "分开"]
    )
    result = subprocess.run(
        ["bash", "-c", f"{program} {length} | head -c 3; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert (result.stdout, result.stderr) == ("分1\n", "")


@pytest.mark.parametrize(
    "argv", [["generate", "-p", "分开"], ["generate", "-p", "分开", "--count", "9"], ["check"]]
)
def test_a_full_disk_behind_stdout(steprnn: Run, tiny: Path, argv: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        options = {"capture_output": False, "stdout": full, "stderr": subprocess.PIPE}
        result = steprnn(argv[0], tiny, *argv[1:], **options)
    assert result.returncode == 1
    assert re.fullmatch(r"the disk is full \(.*\); free some space and run again", told(result.stderr))


def places(tmp_path: Path, small_disk: Path) -> dict[str, tuple[Path, str]]:
    """Folders in which nothing can be written, with what is said of them."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    (tmp_path / "file").write_bytes(b"")
    read_only = f"cannot write in {small_disk} (Read-only file system); choose another "
    file = f"{tmp_path / 'file'} is a file, expected a folder; choose another path"
    return {"read-only": (small_disk, read_only), "a file": (tmp_path / "file", file)}


@pytest.mark.parametrize("place", ["read-only", "a file"])
@pytest.mark.parametrize(
    ("argv", "flag", "name"),
    [
        (["package", "--as", "zip"], "--out", "x.zip"),
        (["package", "--as", "hub", "--name", "me/x"], "--out", "x"),
        (["embed", "TEXTS"], "--out", "x.npy"),
        (["check"], "--report", "x"),
    ],
)
def test_a_place_that_cannot_be_written_in(
    tiny: Path,
    tmp_path: Path,
    small_disk: Path,
    capfd: Capture,
    argv: list[str],
    flag: str,
    name: str,
    place: str,
) -> None:
    folder, words = places(tmp_path, small_disk)[place]
    (tmp_path / "texts.txt").write_text("分开\n", encoding="utf-8")
    argv = [argv[0], str(tiny), *argv[1:], flag, str(folder / name)]
    argv = [str(tmp_path / "texts.txt") if a == "TEXTS" else a for a in argv]
    assert cli.main(argv) == 1
    assert told(capfd.readouterr().err) == words + (flag if place == "read-only" else "")


def test_a_folder_that_is_to_hold_a_file_and_does_not_exist(
    refusal: Callable[..., str], tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("分开\n", encoding="utf-8")
    line = refusal(1, "embed", tiny, tmp_path / "texts.txt", "--out", tmp_path / "none" / "x.npy")
    assert line == f"the folder {tmp_path / 'none'} does not exist; make it, or choose another --out"


def test_a_cache_that_cannot_be_written_in(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    words = rf"has no place in {small_disk}/steprnn \(Read-only file system\); set XDG_CACHE_HOME to another"
    with pytest.raises(UsageError, match=words):
        library._build()
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    (small_disk / "steprnn").mkdir(mode=0o700)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UsageError, match=r"\(it cannot be written in\); set XDG_CACHE_HOME"):
        library._build()


def test_a_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root may write everywhere, the system's answers are made up; a file to be read is none of it."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    refused = PermissionError(13, "Permission denied", str(tmp_path / ".x.zip.abcdefgh.7.new"))
    words = f"cannot write in {tmp_path} (Permission denied); choose another --out"
    assert cli._not_written(refused, ["export"]) == words
    (tmp_path / "there").write_bytes(b"")
    assert cli._not_written(PermissionError(13, "", str(tmp_path / "there")), ["export"]) is None


@pytest.mark.parametrize(
    ("variables", "encoding", "way"),
    [
        ({"PYTHONIOENCODING": "latin-1"}, "latin-1", "PYTHONIOENCODING=utf-8"),
        ({"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}, "ascii", "PYTHONUTF8=1"),
    ],
)
def test_an_output_that_has_no_such_characters(
    steprnn: Run, tiny: Path, tmp_path: Path, variables: dict[str, str], encoding: str, way: str
) -> None:
    (tmp_path / "prompt.txt").write_text("分开", encoding="utf-8")
    result = steprnn("generate", tiny, "-f", tmp_path / "prompt.txt", environment=os.environ | variables)
    assert (result.returncode, result.stdout) == (1, "")
    assert told(result.stderr) == f"the output's encoding, {encoding}, has no '\\u5206'; set {way}"


def interrupted(argv: list[str], ready: Callable[[subprocess.Popen[bytes]], object]) -> tuple[int, bytes]:
    """Exit code and stderr of a command that gets Ctrl-C once it is ready."""
    command = [str(Path(sys.executable).with_name("steprnn")), *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        ready(process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        return process.returncode, err


def test_ctrl_c_in_generate_and_text_that_streams(tiny: Path) -> None:
    def ready(process: subprocess.Popen[bytes]) -> None:
        """Wait for the first characters, hours before the last."""
        assert process.stdout is not None
        assert process.stdout.read(100).decode(errors="ignore").startswith("分开")

    code, err = interrupted(["generate", str(tiny), "-p", "分开", "-n", "1000000000"], ready)
    assert (code, err) == (130, b"steprnn: interrupted; nothing half-written was left behind\n")


def test_ctrl_c_ends_the_line_on_a_terminal(tiny: Path) -> None:
    pty = pytest.importorskip("pty")
    ours, terminal = pty.openpty()
    command = [str(Path(sys.executable).with_name("steprnn")), "generate", str(tiny), "-p", "分开"]
    with subprocess.Popen([*command, "-n", "1000000000"], stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        shown = os.read(ours, 100)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # Linux's word for the end of it
            while data := os.read(ours, 1000):
                shown += data
    os.close(ours)
    assert shown.decode().endswith("\r\nsteprnn: interrupted; nothing half-written was left behind\r\n")


# Damaged bundles, in generate and in check


def damage(name: str, change: Callable[[bytes], bytes | None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = change((folder / name).read_bytes())
        (folder / name).unlink() if data is None else (folder / name).write_bytes(data)

    return apply


def flip(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


@pytest.mark.parametrize(
    ("apply", "words"),
    [
        (damage("step.tflite", lambda data: None), "FOLDER/step.tflite is missing; copy the bundle again"),
        (damage("step.tflite", lambda data: data[:100]), "FOLDER/step.tflite has 100 bytes, expected "),
        (
            damage("step.tflite", flip),
            "FOLDER/step.tflite was altered: its sha256 is not the manifest's; copy",
        ),
        (
            damage("vocabulary.json", flip),
            "FOLDER/vocabulary.json was altered: its sha256 is not the manifest's",
        ),
        (damage("manifest.json", lambda data: None), "FOLDER holds no manifest.json; expected a bundle as "),
        (damage("manifest.json", lambda data: data[:100]), "FOLDER/manifest.json is not JSON ("),
        (
            damage("manifest.json", lambda data: data.replace(b'"version": 1', b'"version": 3')),
            f"FOLDER/manifest.json has format version 3 and this steprnn reads 1 and 2; {upgrade()}",
        ),
        (
            shutil.rmtree,
            "FOLDER does not exist; expected a bundle as `steprnn export CHECKPOINT --out BUNDLE`",
        ),
    ],
)
def test_a_damaged_bundle(
    tiny_copy: Path, refusal: Callable[..., str], apply: Callable[[Path], None], words: str
) -> None:
    apply(tiny_copy)
    words = words.replace("FOLDER", str(tiny_copy))
    assert refusal(1, "generate", tiny_copy, "-p", "分开").startswith(words)
    assert refusal(1, "check", tiny_copy).startswith(words)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "the bundle has an empty name; expected a folder, a .zip or an installed model"),
        ("missing.zip", "missing.zip does not exist; expected a bundle as `steprnn export CHECKPOINT"),
        (
            "https://x.org/y.zip",
            "https://x.org/y.zip is an address; download it and give the file, or take hf://OWNER/NAME",
        ),
        (
            "我的 模型-1.0-py3-none-any.whl",
            "GIVEN is a wheel; run: pip install 'GIVEN', then give its name, 我的 模型",
        ),
        ("text.txt", "text.txt is not a folder; expected a bundle as `steprnn export CHECKPOINT"),
        ("bundle/step.onnx", "bundle/step.onnx is a graph of the bundle bundle; give that folder"),
        ("bundle/golden.npz", "bundle/golden.npz is a file of the bundle bundle; give that folder"),
    ],
)
def test_what_is_no_bundle(
    tiny_copy: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, given: str, words: str
) -> None:
    monkeypatch.chdir(tiny_copy.parent)
    if given.endswith((".whl", ".txt")):
        Path(given).write_bytes(b"")
    words = words.replace("GIVEN", given).replace("bundle bundle", f"bundle {tiny_copy.name}")
    given, words = (text.replace("bundle/", f"{tiny_copy.name}/") for text in (given, words))
    line = refusal(2 if "is a graph" in words else 1, "generate", given, "-p", "分")
    assert line.startswith(words)


# check


def test_check_tells_a_graph_that_says_something_else(
    tiny_copy: Path, edit_manifest: Callable[..., None], capfd: Capture
) -> None:
    """The hashes are right and the engine is content; only the numbers tell."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(tiny_copy / "step.onnx")
    bias = next(i for i in model.graph.initializer if tuple(i.dims) == (32,))
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 0.001, bias.name))
    onnx.save(model, tiny_copy / "step.onnx")
    edit_manifest(tiny_copy)
    assert cli.main(["check", str(tiny_copy)]) == 1
    out, err = capfd.readouterr()
    verdicts = dict(re.findall(r"^(\S+-\S+) .*  (\w+)$", out, re.MULTILINE))
    assert verdicts == {
        "tflite-float32": "passed",
        "tflite-int8": "passed",
        "onnx-float32": "FAILED",
        "onnx-int8": "passed",
    }
    assert re.search(r"^steprnn: .*onnx-float32.* \w+ is .* units off at step ", err, re.MULTILINE)
    assert "Traceback" not in err


def test_check_verifies_every_file(tiny_copy: Path, refusal: Callable[..., str]) -> None:
    damage("golden.npz", flip)(tiny_copy)
    assert refusal(1, "check", tiny_copy).startswith(f"{tiny_copy / 'golden.npz'} was altered")


@pytest.mark.parametrize("golden", ["not an npz file", "empty", "of another step"])
def test_check_needs_a_golden_trajectory_of_this_step(
    tiny_copy: Path, edit_manifest: Callable[..., None], refusal: Callable[..., str], golden: str
) -> None:
    import numpy as np

    path = tiny_copy / "golden.npz"
    arrays = dict(np.load(path))
    if golden == "not an npz file":
        path.write_bytes(b"golden")
    elif golden == "empty":
        np.savez(path)
    else:
        np.savez(path, **{name: array for name, array in arrays.items() if name != "result/next_c"})
    edit_manifest(tiny_copy)
    words = (
        "is not a golden trajectory (" if golden == "not an npz file" else "is not a run of this step; export"
    )
    assert refusal(1, "check", tiny_copy).startswith(f"{path} {words}")


def test_check_without_anything_to_check_is_no_success(
    tiny_copy: Path, edit_manifest: Callable[..., None], steprnn: Run, without: Callable[..., dict[str, str]]
) -> None:
    edit_manifest(tiny_copy, lambda record: record.update(artefacts=record["artefacts"][1:2]))
    result = steprnn("check", tiny_copy, environment=without("onnxruntime"))
    assert (result.returncode, result.stdout) == (2, "")
    assert (
        told(result.stderr)
        == f"nothing to check: {tiny_copy} holds onnx-float32, and installed is litert, native"
    )


# export


def tree(folder: Path) -> dict[str, FileRecord]:
    """Every file of a folder with its hash, hidden ones too."""
    return {str(p.relative_to(folder)): FileRecord.of(p) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def broken(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint, to damage."""
    return shutil.copytree(checkpoint, tmp_path / "broken.checkpoint")


@pytest.mark.parametrize(
    ("apply", "code", "words"),
    [
        (shutil.rmtree, 1, "FOLDER does not exist; expected a checkpoint folder"),
        (
            damage("training.json", lambda data: None),
            1,
            "FOLDER is not a checkpoint: it has no training.json;",
        ),
        (damage("training.json", lambda data: b"{"), 1, "FOLDER/training.json is not JSON ("),
        (
            damage("training.json", lambda data: b"[]"),
            1,
            "FOLDER/training.json is not of a checkpoint: expected",
        ),
        (
            damage("training.json", lambda data: data.replace(b'"version": 1', b'"version": 2')),
            1,
            f"FOLDER/training.json has format version 2 and this steprnn reads 1; {upgrade()}",
        ),
        (
            damage("vocabulary.json", lambda data: None),
            1,
            "FOLDER/vocabulary.json is missing; copy the whole",
        ),
        (
            damage("vocabulary.json", lambda data: data.replace("分".encode(), '爱",\n"分'.encode())),
            1,
            "FOLDER does not fit together: the model has 21 logits, the vocabulary 22 characters; train",
        ),
        (damage("model.keras", lambda data: None), 1, "FOLDER/model.keras is missing; train again, or copy"),
        (damage("model.keras", lambda data: data[:1000]), 1, "cannot open FOLDER/model.keras: "),
        (damage("model.keras", lambda data: b"weights"), 1, "cannot open FOLDER/model.keras: "),
    ],
)
def test_a_checkpoint_that_cannot_be_exported(
    broken: Path,
    tiny_copy: Path,
    refusal: Callable[..., str],
    apply: Callable[[Path], None],
    code: int,
    words: str,
) -> None:
    """And the bundle that stands where the new one would is not touched."""
    apply(broken)
    before = tree(tiny_copy.parent)
    assert words.replace("FOLDER", str(broken)) in refusal(code, "export", broken, "--out", tiny_copy)
    assert tree(tiny_copy.parent) == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--formats", "onnx,pdf"], "'pdf' is unknown; expected one of: saved_model, tflite, onnx"),
        (["--quantize", "int4"], "'int4' is unknown; expected one of: "),
        (["--text", "short.txt"], "the text has 2 known characters; expected at least 1,024"),
    ],
)
def test_flags_of_export_that_cannot_be_meant(
    checkpoint: Path, tmp_path: Path, refusal: Callable[..., str], flags: list[str], words: str
) -> None:
    (tmp_path / "short.txt").write_text("分开", encoding="utf-8")
    flags = [str(tmp_path / f) if f.endswith(".txt") else f for f in flags]
    assert refusal(2, "export", checkpoint, "--out", tmp_path / "new", *flags).startswith(words)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("content", "words"), [(None, "does not exist"), ("分开".encode("gbk"), "is not UTF-8")]
)
def test_a_text_that_cannot_be_read(
    checkpoint: Path, tmp_path: Path, refusal: Callable[..., str], content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    line = refusal(1, "export", checkpoint, "--out", tmp_path / "new", "--text", tmp_path / "text")
    assert re.search(words, line)
    assert str(tmp_path / "text") in line


def test_export_replaces_nothing_but_bundles(
    checkpoint: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    folder, file = tmp_path / "photographs", tmp_path / "file"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(b"1")
    file.write_bytes(b"2")
    for out in (folder, file):
        words = f"{out} exists and is not a bundle; choose another --out, nothing was changed"
        assert refusal(2, "export", checkpoint, "--out", out) == words
    assert {p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == {b"1", b"2"}


@pytest.mark.parametrize("formats", ["onnx", "tflite", "saved_model"])
def test_a_full_disk_during_export(
    checkpoint: Path, small_disk: Path, refusal: Callable[..., str], formats: str
) -> None:
    """The bundle that is there stays whole, and nothing beside it."""
    bundle = shutil.copytree(Path(__file__).parent / "tiny" / "bundle", small_disk / "bundle")
    (small_disk / "ballast").write_bytes(b"0" * 150_000)
    before = tree(small_disk)
    line = refusal(1, "export", checkpoint, "--out", bundle, "--formats", formats)
    assert re.fullmatch(r"the disk is full \(.*\); free some space and run again", line)
    assert tree(small_disk) == before


def test_ctrl_c_during_export(checkpoint: Path, tiny_copy: Path) -> None:
    before = tree(tiny_copy.parent)

    def ready(process: subprocess.Popen[bytes]) -> None:
        """Wait until the new folder has its first file."""
        assert process.stderr is not None
        for line in process.stderr:
            if b"saved_model-float32" in line:
                return
        pytest.fail("export ended by itself")

    code, err = interrupted(["export", str(checkpoint), "--out", str(tiny_copy)], ready)
    assert code == 130
    assert err.splitlines()[-1] == b"steprnn: interrupted; nothing half-written was left behind"
    assert b"Traceback" not in err
    assert tree(tiny_copy.parent) == before


# demo


def test_the_table_of_demo_reads_the_record_of_parity(tiny_copy: Path) -> None:
    (tiny_copy / "parity.json").write_text("{", encoding="utf-8")
    with pytest.raises(BundleError, match=r"parity\.json is not JSON \(.*\); export again$"):
        demo.summary(tiny_copy)


# docs/commands.md


def help_of(command: str, columns: int = cli.WIDTH + 2) -> str:
    """What `steprnn COMMAND --help` prints; the whole command's own for "steprnn"."""
    out = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.suppress(SystemExit),
    ):
        patch.setenv("COLUMNS", str(columns))
        cli.main(["--help"] if command == "steprnn" else [command, "--help"])
    return out.getvalue()


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_as_wide_as_the_terminal(command: str, columns: int) -> None:
    told = help_of(command, columns).partition("\nexample:\n")[0]  # an example is to be pasted
    lines = [line for line in told.splitlines() if "{" not in line]  # a list of choices is one word
    assert max(map(len, lines)) <= columns - 2


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="argparse lays its help out otherwise from 3.13 on")
def test_help_in_the_page_is_what_the_command_prints() -> None:
    blocks = {
        command: text for _, command, text, _ in BLOCK.findall(COMMANDS_PAGE.read_text(encoding="utf-8"))
    }
    assert set(blocks) == set(COMMANDS), "each has a block <!-- help: COMMAND --> in docs/commands.md"
    for command, text in blocks.items():
        assert text == help_of(command), f"run: python tests/test_commands.py ({command})"


if __name__ == "__main__":
    text = COMMANDS_PAGE.read_text(encoding="utf-8")
    COMMANDS_PAGE.write_text(BLOCK.sub(lambda m: f"{m[1]}{help_of(m[2])}{m[4]}", text), encoding="utf-8")
