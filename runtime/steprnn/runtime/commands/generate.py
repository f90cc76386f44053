"""`steprnn generate`: text to stdout as it comes, everything else to stderr."""

from __future__ import annotations

import argparse
import os
import sys
import time

from ..errors import UsageError
from ..options import Options
from . import _engine_flags

HELP = "write text that follows a prompt"
EXAMPLE = "  steprnn generate lyrics.bundle -p 分开 -n 50 --temp 0.8 --seed 7"
NEEDS: dict[str, str] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command, named as llama.cpp names them."""
    parser.add_argument("bundle", help="a bundle: a folder, a .zip or an installed model")
    parser.add_argument("-p", "--prompt", required=True, help="how the text begins")
    parser.add_argument("-n", "--n-predict", type=int, default=50, metavar="N", help="characters to write")
    parser.add_argument("--temp", type=float, default=0.0, help="temperature; 0 takes the likeliest (greedy)")
    parser.add_argument(
        "--top-k", type=int, default=0, metavar="N", help="draw from the N likeliest; 0 is off"
    )
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="draw from the likeliest that sum to P"
    )
    parser.add_argument(
        "--min-p", type=float, default=0.0, metavar="P", help="leave out those below P times the likeliest"
    )
    parser.add_argument(
        "--repeat-penalty",
        type=float,
        default=1.0,
        metavar="X",
        help="make recent characters less likely; 1 is off",
    )
    parser.add_argument(
        "--repeat-last-n", type=int, default=64, metavar="N", help="how many characters are recent"
    )
    parser.add_argument(
        "--seed", type=int, help="makes the draw repeatable (default: a new one, told on stderr)"
    )
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be repeated"
    )
    parser.add_argument(
        "--count", type=int, metavar="N", help="write N texts, one a line, with seeds from --seed on"
    )
    parser.add_argument(
        "--unknown", choices=("error", "skip"), default="error", help="characters the model does not know"
    )
    _engine_flags.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Generate, and tell the seed, the engine and the speed on stderr."""
    if any("\ud800" <= c <= "\udfff" for c in arguments.prompt):  # how Python keeps bytes it cannot decode
        raise UsageError("the prompt is not UTF-8; expected UTF-8 on the command line")
    model = _engine_flags.load_model(arguments)
    seed = int.from_bytes(os.urandom(4), "little") if arguments.seed is None else arguments.seed
    options: Options = {
        "seed": seed,
        "stop": arguments.stop,
        "unknown": arguments.unknown,
        "temperature": arguments.temp,
        "top_k": arguments.top_k,
        "top_p": arguments.top_p,
        "min_p": arguments.min_p,
        "repeat_penalty": arguments.repeat_penalty,
        "repeat_last_n": arguments.repeat_last_n,
    }
    started, length = time.perf_counter(), 0
    if arguments.count is not None:
        for text in model.generate(arguments.prompt, arguments.n_predict, n=arguments.count, **options):
            length += len(text) - len(arguments.prompt)
            sys.stdout.write(text.replace("\n", " ") + "\n")
    else:
        pieces = model.stream(arguments.prompt, arguments.n_predict, **options)
        sys.stdout.write(arguments.prompt)
        for piece in pieces:
            length += len(piece)
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
    sys.stdout.flush()
    seconds = time.perf_counter() - started
    drawn = f"seed {seed}, " if arguments.temp > 0 else "greedy, "
    sys.stderr.write(
        f"{drawn}{model.engine} {model.artefact.variant}, {length} characters in {seconds * 1e3:.1f} ms\n"
    )
    return 0
