"""`steprnn generate`: text to stdout as it comes, everything else to stderr."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ..errors import UsageError
from ..sampling.sampler import new_seed
from ..texts.encoding import not_utf8
from ..texts.options import Options
from . import _engine_flags, _sampling_flags
from ._aliases import alias

HELP = "write text that follows a prompt"
EXAMPLE = "  steprnn generate lyrics.bundle -p 分开 -n 50 --temp 0.8 --seed 7"
NEEDS: dict[str, str] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command, named as llama.cpp names them; other spellings are taken too."""
    parser.add_argument("bundle", help="a bundle: a folder, a .zip or an installed model")
    begins = parser.add_mutually_exclusive_group()
    begins.add_argument("-p", "--prompt", help="how the text begins (default: what comes on stdin)")
    begins.add_argument("-f", "--file", metavar="FILE", help="a UTF-8 file with the prompt; - is stdin")
    length = parser.add_argument(
        "-n", "--n-predict", type=int, default=50, metavar="N", help="characters to write"
    )
    also = ("--n_predict", "--predict", "--max-tokens", "--max_tokens", "--max-new-tokens")
    alias(length, *also, of=parser)
    _sampling_flags.add_arguments(parser)
    seed = parser.add_argument(
        "--seed", type=int, help="makes the draw repeatable (default: a new one, told on stderr)"
    )
    alias(seed, "-s", of=parser)
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be repeated"
    )
    count = parser.add_argument(
        "--count", type=int, metavar="N", help="write N texts, one a line, with seeds from --seed on"
    )
    alias(count, "--n", of=parser)
    parser.add_argument(
        "--unknown", choices=("error", "skip"), default="error", help="characters the model does not know"
    )
    _engine_flags.add_arguments(parser)


def read_prompt(arguments: argparse.Namespace) -> str:
    """The prompt of `-p`, of a file, or of stdin where neither is given and nobody types there.

    A line break at the end of a file ends its last line and is no part of the prompt.
    """
    if arguments.prompt is not None:
        if any(
            "\ud800" <= c <= "\udfff" for c in arguments.prompt
        ):  # how Python keeps bytes it cannot decode
            raise UsageError("the prompt is not UTF-8; expected UTF-8 on the command line")
        return str(arguments.prompt)
    if arguments.file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("the prompt is missing; give it with -p TEXT, -f FILE or on stdin")
    stdin = arguments.file in (None, "-")
    name = "stdin" if stdin else arguments.file
    try:
        data = sys.stdin.buffer.read() if stdin else Path(arguments.file).read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(not_utf8(name, data, error.start)) from None
    except FileNotFoundError:
        raise UsageError(f"{name} does not exist; expected a UTF-8 file with the prompt") from None
    except IsADirectoryError:
        raise UsageError(f"{name} is a folder; expected a UTF-8 file with the prompt") from None
    prompt = text.replace("\r\n", "\n").removesuffix("\n")
    if not prompt:
        raise UsageError(f"{name} is empty; expected a prompt: -p TEXT, -f FILE or text on stdin")
    return prompt


def run(arguments: argparse.Namespace) -> int:
    """Generate, and tell the seed, the engine and the speed on stderr."""
    prompt = read_prompt(arguments)
    model = _engine_flags.load_model(arguments)
    seed = new_seed() if arguments.seed is None else arguments.seed
    options: Options = {
        "seed": seed,
        "stop": arguments.stop,
        "unknown": arguments.unknown,
    }
    options.update(_sampling_flags.options_of(arguments))
    started, length = time.perf_counter(), 0
    if arguments.count is not None:
        for text in model.generate(prompt, arguments.n_predict, n=arguments.count, **options):
            length += len(text) - len(prompt)
            sys.stdout.write(text.replace("\n", " ") + "\n")
    else:
        pieces = model.stream(prompt, arguments.n_predict, **options)
        sys.stdout.write(prompt)
        try:
            for piece in pieces:
                length += len(piece)
                sys.stdout.write(piece)
                sys.stdout.flush()
        finally:  # what is told of an error, or of Ctrl-C, begins a line
            sys.stdout.write("\n")
    sys.stdout.flush()
    seconds = time.perf_counter() - started
    drawn = f"seed {seed}, " if arguments.temperature > 0 else "greedy, "
    sys.stderr.write(
        f"{drawn}{model.engine} {model.artefact.variant}, {length} characters in {seconds * 1e3:.1f} ms\n"
    )
    return 0
