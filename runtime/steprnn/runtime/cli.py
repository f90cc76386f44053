"""The command `steprnn`: finds its subcommands among the entry points, and turns errors into one line."""

from __future__ import annotations

import argparse
import errno
import importlib
import importlib.util
import os
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol

from .errors import MissingExtra, SteprnnError, UnknownToken, UsageError

GROUP = "steprnn.commands"
ORDER = tuple("train export check inspect generate score embed map bench models package serve demo".split())

WIDTH = 100  # of --help, where it goes to no terminal that is narrower


class Command(Protocol):
    """A module of the entry-point group `steprnn.commands`; importing it must be cheap."""

    HELP: str  # one line, for the list of commands
    EXAMPLE: str  # shown at the end of --help
    NEEDS: dict[str, str]  # module that must be importable -> extra that brings it

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, arguments: argparse.Namespace) -> int: ...


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (failed) or 2 (usage, or a missing extra)."""
    argv = (sys.argv[1:] if argv is None else argv) or ["--help"]
    before = _end_at_sigterm()
    try:
        found = parser(argv)
        if "_ARGCOMPLETE" in os.environ:  # a shell asks how the line may go on
            from argcomplete import autocomplete

            autocomplete(found)
        arguments = found.parse_args(argv)
        for module, extra in arguments.needs.items():
            if importlib.util.find_spec(module) is None:
                raise MissingExtra(module, extra)
        code = int(arguments.run(arguments))
        sys.stdout.flush()  # here, where an error still becomes one line
        return code
    except UnknownToken as error:
        way = "choose others, or skip them with --unknown skip"
        return _fail(f"{error.problem}; {way}", error.exit_code)
    except SteprnnError as error:
        return _fail(str(error), error.exit_code)
    except Terminated:
        return _fail("terminated; nothing half-written was left behind", 143)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing half-written was left behind", 130)
    except BrokenPipeError:  # the reader of our output has gone; there is nobody to tell
        _drop_output()
        return 1
    except UnicodeEncodeError as error:
        character = error.object[error.start]
        way = "set PYTHONUTF8=1"
        if "PYTHONIOENCODING" in os.environ:  # which comes before it
            way = "set PYTHONIOENCODING=utf-8"
        return _fail(f"the output's encoding, {error.encoding}, has no {character!a}; {way}", 1)
    except OSError as error:
        _drop_output()
        if error.errno == errno.ENOSPC:
            return _fail(f"the disk is full ({error.filename or error}); free some space and run again", 1)
        return _fail(_not_written(error, argv) or str(error), 1)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Ctrl-C: every block that tidies up at one does so at the other."""


def _end_at_sigterm() -> signal.Handlers | Callable[[int, FrameType | None], object] | int | None:
    """Make SIGTERM an exception; returns what it did before, where this may change it."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, end)


def parser(argv: list[str]) -> argparse.ArgumentParser:
    """The parser of all commands, or of the one that `argv` names."""
    whole = _Parser(
        prog="steprnn",
        description="Turn a trained Keras recurrent model into a verified single step, and run it.",
        epilog="`steprnn COMMAND --help` has the flags and an example.",
    )
    whole.add_argument("--version", nargs=0, action=_Version, help="show the version and exit")
    found = _commands(argv[0])
    names = sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    asked = [argv[0]] if argv[0] in found else names  # import only the one that runs
    for name in asked:
        module: Command = importlib.import_module(found[name])
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog=f"example:\n{module.EXAMPLE}",
            formatter_class=_Help,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run, needs=module.NEEDS)
    if argv[0] in found:  # of which the whole's parser tells what is unknown, too
        whole.way = command.way
    elif not argv[0].startswith("-"):
        from difflib import get_close_matches

        near = get_close_matches(argv[0], names, 1)
        whole.way = f"did you mean {near[0]}?" if near else whole.way
    return whole


def _commands(asked: str) -> dict[str, str]:
    """Names of commands and their modules; only the one asked for, where it is the runtime's own.

    Every module in commands/ is one, but for those that begin with `_`. Looking through the entry points
    of all installed packages takes longer than a short text.
    """
    own = f"{__package__}.commands.{asked}"
    if asked.isidentifier() and not asked.startswith("_") and importlib.util.find_spec(own):
        return {asked: own}
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=GROUP)}


class _Parser(argparse.ArgumentParser):
    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.way = f"`{self.prog} --help` tells the flags"

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; {self.way}")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *given: object) -> None:
        from importlib.metadata import version  # as slow as the entry points

        sys.stdout.write(f"steprnn {version('steprnn')}\n")
        parser.exit()


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size((WIDTH + 2, 24)).columns - 2
        super().__init__(prog, width=max(min(columns, WIDTH), 20), max_help_position=30)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap a description; an example stays in its lines, to be pasted."""
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, [], False) else super()._get_help_string(action)


def _not_written(error: OSError, argv: list[str]) -> str | None:
    """The words for a place that nothing can be written in; None where the error is another.

    The file that it names may be a temporary one of ours, of which nobody knows: its folder is told.
    """
    from .claims import NEW  # as slow as the rest, and only an error needs it

    if not isinstance(error.filename, str):
        return None
    path = Path(error.filename)
    folder, way = path.parent, f"choose another {'--report' if argv[0] == 'check' else '--out'}"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        taken = next((p for p in (path, *path.parents) if p.is_file()), None)
        return f"{taken} is a file, expected a folder; choose another path" if taken else None
    if error.errno == errno.ENOENT and NEW.search(path.name):
        return f"the folder {folder} does not exist; make it, or {way}"
    refused = (
        error.errno in (errno.EACCES, errno.EPERM) and folder.is_dir() and not os.access(folder, os.W_OK)
    )
    if error.errno == errno.EROFS or (refused and not path.exists()):  # else it was to be read
        return f"cannot write in {folder} ({error.strerror}); {way}"
    return None


def _drop_output() -> None:
    """Let go of what stdout no longer takes, or Python tries again at exit and complains."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"steprnn: {' '.join(message.split())}\n")
    return code
