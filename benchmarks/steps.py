"""One step at a time, side by side: `python benchmarks/steps.py CHECKPOINT BUNDLE`.

First every contender writes the same greedy text from the same weights; then they take turns on one core.
The peers come with the extra `bench`. Prints Markdown: what the variants cost and say, what `steprnn bench`
measures of the bundle, and the peers. Exits 1 where a float32 contender writes another text.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

with contextlib.suppress(ImportError):  # PyTorch's compiler; loaded after TensorFlow, it crashes the process
    import triton  # noqa: F401

import tensorflow as tf
from book import Book, Write
from peers import PEERS
from tables import add_argument, put

from steprnn.export.inspect import inspect
from steprnn.export.source import open_source
from steprnn.runtime import Model, engines, load
from steprnn.runtime.bench.machine import pinned, read_seconds
from steprnn.runtime.bench.measure import FULL, QUICK, Pace, measure, runnable
from steprnn.runtime.bench.rounds import Spread, Workload, time_rounds
from steprnn.runtime.bench.tables import markdown
from steprnn.runtime.bench.workloads import workloads_of
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.errors import BundleError
from steprnn.runtime.files import PARITY, PARITY_FORMAT, read_record
from steprnn.runtime.markdown import table
from steprnn.runtime.origin import install
from steprnn.runtime.quiet import quiet

Say = Callable[[str], None]
PROMPT, CHECKED = "分开", 200


def say(line: str, file: TextIO | None = None) -> None:
    """Progress."""
    print(line, file=file or sys.stderr, flush=True)


def ours(model: Model) -> Write:
    """`model.generate`, as tokens."""
    vocabulary = model.vocabulary
    assert vocabulary is not None

    def write(prompt: Sequence[int], length: int) -> list[int]:
        text = model.generate(vocabulary.decode(prompt), length)
        return vocabulary.encode(text)[len(prompt) :]

    return write


def contenders(
    book: Book, models: Mapping[str, Model], prompt: Sequence[int], say: Say
) -> dict[str, tuple[Write, int | None]]:
    """Whatever works here by name, and where its text leaves NumPy's (None: nowhere); the rest is told."""
    makers: dict[str, Callable[[], Write]] = {name: partial(make, book) for name, make in PEERS.items()}
    makers |= {f"**steprnn {name}**": partial(ours, model) for name, model in models.items()}
    expected = PEERS["NumPy"](book)(prompt, CHECKED)
    found = {}
    for name, make in makers.items():
        say(f"the text of {name}")
        try:
            write = make()
            found[name] = write, leaves_at(write(prompt, CHECKED), expected)
        except ImportError as error:
            say(f"{name} is left out: {error}; run: {install('bench')}")
        except Exception as error:  # torch.compile without a compiler, a peer of another version
            if name not in PEERS:
                raise
            say(f"{name} is left out: {' '.join(str(error).split())[:200]}")
    return found


def leaves_at(text: list[int], expected: list[int]) -> int | None:
    """Where a text leaves another; None if nowhere."""
    return next((i for i, pair in enumerate(zip(text, expected, strict=True)) if pair[0] != pair[1]), None)


def compare(bundle: Path, checkpoint: Path, pace: Pace, say: Say) -> tuple[list[str], list[str]]:
    """The lines of the table, and the float32 contenders that write another text."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    book = Book(open_source(checkpoint).model, bundle / "step.onnx", bundle / "step.tflite")
    candidates, _ = runnable(Manifest.read(bundle))
    models = {name: load(bundle, engine=e, variant=a.variant) for name, (e, a) in candidates.items()}
    vocabulary = next(iter(models.values())).vocabulary
    assert vocabulary is not None
    prompt = vocabulary.encode(PROMPT)
    found = contenders(book, models, prompt, say)
    wrong = [
        name for name, (_, at) in found.items() if at is not None and (name in PEERS or "float32" in name)
    ]

    workloads: dict[str, Workload] = {name: partial(write, prompt) for name, (write, _) in found.items()}
    workloads |= {f"{name}, engine alone": workloads_of(model)["raw"] for name, model in models.items()}
    began, worked = time.perf_counter(), time.process_time()
    times = time_rounds(
        workloads, pace.rounds, pace.seconds, lambda n: say(f"round {n + 1} of {pace.rounds}")
    )
    share = min(1.0, (time.process_time() - worked) / (time.perf_counter() - began))
    floors = {
        name: read_seconds(inspect(bundle / a.path).weights.per_step) * 1e6
        for name, (_, a) in candidates.items()
    }
    texts = {
        name: "same" if at is None else f"another from character {at + 1}" for name, (_, at) in found.items()
    }
    lines = compared({name: Spread.of(values) for name, values in times.items()}, texts, floors)
    noise = f"The core was ours {share:.0%} of the time; medians of {pace.rounds} rounds taken in turn. "
    return [noise + lines[0], *lines[1:]], wrong


def compared(
    spreads: Mapping[str, Spread], texts: Mapping[str, str], floors: Mapping[str, float]
) -> list[str]:
    """A paragraph, and a row for each contender, the slowest first."""
    fastest = min((name for name in spreads if name in PEERS), key=lambda name: spreads[name].median)
    float32 = min(us for name, us in floors.items() if "float32" in name)
    rows = []
    for name, spread in sorted(spreads.items(), key=lambda item: -item[1].median):
        own = max((candidate for candidate in floors if candidate in name), key=len, default=None)
        floor = floors[own] if own else float32
        time_of = f"{spread.median:,.1f} ({spread.least:,.1f}, {spread.p90:,.1f})"
        speed = f"{spreads[fastest].median / spread.median:.3g}"
        rows.append([name, time_of, speed, f"{spread.median / floor:,.1f}", texts.get(name, "")])
    for name, us in floors.items():
        rows.append([f"floor of {name}: its weights read once", f"{us:,.1f}", "", "", ""])
    head = ["", "us a step", "speed, fastest peer = 1", "times its floor", "greedy text"]
    return [
        "In brackets: the best round, and what nine of ten rounds are below. "
        f"The fastest float32 peer here is {fastest}.",
        "",
        *table(head, rows, words=(0, 4)),
    ]


def variants(bundle: Path, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each variant costs, and what its artefact was found to say when it was written."""
    record = read_record(bundle / PARITY, PARITY_FORMAT, BundleError, "export again")
    chained = {f["candidate"]: f["figures"] for f in reversed(record["findings"]) if f["level"] == "chained"}
    cells = []
    for row in rows:
        artefact = f"{engines.ENGINES[row['engine']]}-{row['variant']} in {row['engine']}"
        said = chained[artefact]
        cells.append(
            [
                f"{row['engine']} {row['variant']}",
                f"{row['bytes']:,}",
                f"{row['generate_us']:,.1f}",
                f"{row['generate_64_tokens_per_second']:,.0f}",
                f"{said['same_top_1']:.2%}",
                f"{said['mean_kl']:.1e}",
                f"{said['perplexity']:+.3%}",
            ]
        )
    head = ["bytes", "us a step", "tokens/s, 64 at once", "same-top-1", "mean KL, nats", "perplexity"]
    return table(["", *head], cells)


def main() -> int:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("bundle", type=Path, help="exported from the checkpoint")
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    add_argument(parser)
    arguments = parser.parse_args()
    pace = QUICK if arguments.quick else FULL
    report = measure(arguments.bundle, pace, say)
    told = {"variants": variants(arguments.bundle, report.rows), "bench": markdown(report)}
    with pinned(), quiet() as terminal:  # before the peers start threads, as many as they see cores
        talk = partial(say, file=terminal)
        lines, wrong = compare(arguments.bundle, arguments.checkpoint, pace, talk)
    told["steps"] = lines
    print("\n\n".join("\n".join(part) for part in told.values()))
    put(arguments.tables, told)
    for name in wrong:
        say(f"{name} writes another text")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
