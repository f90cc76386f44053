"""The command `steprnn train`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import fields
from pathlib import Path

from steprnn.runtime.claims import temporary_files
from steprnn.runtime.cli import Terminated
from steprnn.runtime.files import export_line
from steprnn.runtime.heavy import heavy_imports

from .checkpoint import Training, check
from .corpus import is_address
from .prepared import check_sample_every, prepare
from .settings import CELLS, TOKENS, Settings

HELP = "train a character model on a text and write a checkpoint folder"
EXAMPLE = "  steprnn train --corpus lyrics.txt --out checkpoint --epochs 60 --prompts 分开 不分开"
NEEDS = {"tensorflow": "train", "keras": "train", "matplotlib": "train"}

_DEFAULT = Settings()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `steprnn train`."""
    text = parser.add_argument_group("text")
    text.add_argument(
        "--corpus", metavar="FILE", help="a .txt, .zip or .gz file, or a URL (the embedded lyrics)"
    )
    text.add_argument("--sha256", metavar="HEX", help="what the file must have")
    _number(text, "characters", "use the first N characters; 0: all")
    text.add_argument("--keep-line-breaks", action="store_true", help="do not turn line breaks into spaces")
    text.add_argument(
        "--tokens", choices=TOKENS, default=_DEFAULT.tokens, help="what is read one at a time (characters)"
    )
    _number(text, "holdout", "share at the end that is not trained on but measured, such as 0.1")

    model = parser.add_argument_group("model")
    model.add_argument("--cell", choices=CELLS, default=_DEFAULT.cell, help="kind of recurrent layer")
    _number(model, "layers", "recurrent layers")
    _number(model, "units", "units of each")
    _number(model, "embedding", "size of an embedding; 0: one-hot")
    _number(model, "dropout", "share dropped after each recurrent layer")

    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="FOLDER", default="checkpoint", help="where the checkpoint goes")
    run.add_argument("--overwrite", action="store_true", help="throw away the checkpoint that is there")
    _number(run, "epochs", "times over the text")
    _number(run, "batch", "rows the text is laid into")
    _number(run, "window", "characters between two updates")
    _number(run, "learning_rate", "of Adam")
    _number(run, "decay", "share of the epochs, at the end, over which the rate falls; 0: never")
    _number(run, "clip", "largest global norm of a gradient; 0: any")
    _number(run, "patience", "stop after N epochs without a better loss; 0: never")
    _number(run, "seed", "equal seeds give equal models")

    shown = parser.add_argument_group("shown")
    shown.add_argument("--prompts", metavar="TEXT", nargs="+", default=[], help="continue these as it learns")
    shown.add_argument(
        "--sample-every",
        metavar="N",
        type=int,
        help="epochs between two samples (default: six times in a run), and always at the end",
    )
    shown.add_argument(
        "--unknown",
        choices=("error", "skip"),
        default="error",
        help="characters of a prompt that the text does not have",
    )
    shown.add_argument("--tensorboard", metavar="FOLDER", help="also write logs for TensorBoard")
    shown.add_argument("--quiet", action="store_true", help="nothing but the samples and the result")


def run(arguments: argparse.Namespace) -> int:
    """Train; progress and samples go to stderr."""
    settings = Settings(**{field.name: getattr(arguments, field.name) for field in fields(Settings)})
    check_sample_every(arguments.sample_every)
    with temporary_files(), redirect_stdout(sys.stderr):  # Keras shows a download on stdout
        if is_address(arguments.corpus):  # Keras fetches it
            with heavy_imports(), _without_greetings():
                pass
        prepared = prepare(arguments.corpus, arguments.sha256, settings, arguments.prompts, arguments.unknown)
        planned = Training.of(settings, prepared.corpus, {})
        check(Path(arguments.out), planned, settings, overwrite=arguments.overwrite)
        if arguments.quiet and prepared.corpus.whole > len(prepared.corpus.text):
            sys.stderr.write(prepared.summary + "\n")
        with heavy_imports(), _without_greetings():
            from .fit import train_prepared
        try:
            training = train_prepared(
                arguments.out,
                prepared,
                settings,
                sample_every=arguments.sample_every,
                tensorboard=arguments.tensorboard,
                overwrite=arguments.overwrite,
                verbose=0 if arguments.quiet else 1,
            )
        except KeyboardInterrupt as interrupt:
            if not str(interrupt):
                raise
            sys.stderr.write(f"\nsteprnn: {interrupt}\n")
            return 143 if isinstance(interrupt, Terminated) else 130
    best = training.history[(training.best_epoch or 1) - 1]
    beside = f", held out {best['held_out_perplexity']:.2f}" if "held_out_perplexity" in best else ""
    sys.stderr.write(
        f"perplexity {best['perplexity']:.4f}{beside} in epoch {best['epoch']} of {len(training.history)}; "
        f"wrote {arguments.out}\n"
    )
    if not arguments.quiet:
        sys.stderr.write(f"next: {export_line(Path(arguments.out))}\n")
    return 0


@contextmanager
def _without_greetings() -> Iterator[None]:
    """TensorFlow tells of its build and of missing GPUs on stderr, before it can be asked not to."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        import tensorflow

        tensorflow.config.list_logical_devices()  # looks for GPUs, and tells again
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _number(group: argparse._ArgumentGroup, name: str, text: str) -> None:
    default = getattr(_DEFAULT, name)
    metavar = "N" if isinstance(default, int) else "X"
    group.add_argument(
        f"--{name.replace('_', '-')}", metavar=metavar, type=type(default), default=default, help=text
    )
