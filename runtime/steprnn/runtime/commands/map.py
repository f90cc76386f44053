"""`steprnn map`: a file of rows in, the same rows with scores, vectors or texts out."""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..bulk import job, outputs
from ..bulk.workers import TASKS, Work
from ..errors import UsageError
from ..quiet import quiet
from ..sampling.sampler import new_seed
from ..texts.reading import POOLS
from . import _engine_flags, _sampling_flags

HELP = "score, embed or continue every row of a file, or of many"
EXAMPLE = (
    "  steprnn map lyrics.bundle poems.parquet --out vectors.parquet --task embed --normalize\n"
    "  steprnn map lyrics.bundle prompts.jsonl --out texts.jsonl --task generate --temp 0.8 --seed 7"
)
NEEDS: dict[str, str] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files, the task and its options, and who does the work."""
    parser.add_argument("bundle", help="a bundle: a folder, a .zip or an installed model")
    parser.add_argument("input", help="a .parquet, .jsonl, .csv or .txt file, or a folder of one kind")
    parser.add_argument("--out", required=True, metavar="FILE", help="a .parquet or .jsonl file")
    parser.add_argument("--task", required=True, choices=TASKS, help="what is done with each row")
    parser.add_argument("--column", default="text", metavar="NAME", help="the column with the text")
    parser.add_argument(
        "--unknown", choices=("error", "skip"), default="error", help="characters the model does not know"
    )
    embed = parser.add_argument_group("embed")
    embed.add_argument(
        "--pool", choices=POOLS, default="last", help="the state after the text, or the mean of all"
    )
    embed.add_argument("--normalize", action="store_true", help="make each vector's length 1")
    generate = parser.add_argument_group("generate, as the command of that name")
    generate.add_argument("-n", "--n-predict", type=int, default=50, metavar="N", help="characters to write")
    _sampling_flags.add_arguments(generate)
    generate.add_argument("--seed", type=int, help="of the first row; row i has seed + i (with --temp)")
    generate.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text")
    work = parser.add_argument_group("work")
    work.add_argument("--strict", action="store_true", help="stop at the first row that cannot be done")
    work.add_argument("--processes", type=int, metavar="N", help="processes or actors (default: one a core)")
    work.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS", help="actors of Ray, of a cluster or of this machine"
    )
    _engine_flags.add_arguments(work)


def run(arguments: argparse.Namespace) -> int:
    """Do all rows, and tell on stderr how many there were."""
    out, task = Path(arguments.out), arguments.task
    kind = out.suffix.lower()
    if kind not in outputs.KINDS:
        raise UsageError(f"--out {out} does not end in one of {', '.join(outputs.KINDS)}")
    if arguments.processes is not None and arguments.processes < 1:
        raise UsageError(f"--processes is {arguments.processes}; expected at least 1")
    options = _options(arguments)
    started = time.perf_counter()
    with quiet():
        columns = TASKS[task](arguments.bundle, **options)
    model = columns.model
    options |= {"engine": model.engine, "variant": model.artefact.variant}
    there = Path(arguments.bundle)
    bundle = str(there.absolute()) if there.exists() else arguments.bundle
    identity = {"task": task, "model": model.manifest.model, **options, "steprnn": version("steprnn")}
    seed = options.pop("seed", None)
    work = Work(task, bundle, options, kind, seed)
    told = job.run(
        columns,
        work,
        Path(arguments.input),
        out,
        identity,
        workers=arguments.processes,
        ray=arguments.ray,
        strict=arguments.strict,
    )
    seconds = time.perf_counter() - started
    words = f"{model.engine} {model.artefact.variant}, {told.rows:,} rows"
    words += f", {told.before:,} of them before" if told.before else ""
    words += f", {told.bad:,} with an error" if told.bad else ""
    words += f" ({told.first})" if told.first else ""
    sys.stderr.write(f"{words}, {seconds:.1f} s\n")
    return 0


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of the class that does the task."""
    names = ("column", "unknown", "engine", "variant", "threads")
    options: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    if arguments.task == "embed":
        options |= {"pool": arguments.pool, "normalize": arguments.normalize}
    if arguments.task == "generate":
        if arguments.temperature > 0 and arguments.seed is None:
            raise UsageError(
                f"--seed is missing, so that a run that ends early could not go on; add --seed {new_seed()}"
            )
        options |= {"length": arguments.n_predict, "stop": arguments.stop, "seed": arguments.seed or 0}
        options |= _sampling_flags.options_of(arguments)
    return options
