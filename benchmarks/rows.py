"""`steprnn map` against the bare loop, side by side: `python benchmarks/rows.py BUNDLE`.

The same rows of Parquet, texts of 8 to 56 characters of the bundle's vocabulary, are embedded by

bare loop        `Embed` in this process, over the columns as `pyarrow` reads them; nothing is written
N processes      `steprnn map --processes N`, to a file of Parquet
N actors of Ray  `steprnn map --ray --processes N` on this machine, where Ray is installed

in turn. A command's time is from its start to its end, so that of a small and a large file the difference is
what the rows take, and what is left is the start: loading, and for Ray its own processes.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq
from tables import add_argument, put

from steprnn.runtime import load
from steprnn.runtime.bulk import Embed
from steprnn.runtime.markdown import table

AT_ONCE = 1024  # rows


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variant", default="float32")
    add_argument(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = (arguments.rows // 10, arguments.rows)
        files = {size: written(arguments.bundle, size, Path(folder) / f"{size}.parquet") for size in sizes}
        ways = {"bare loop": partial(bare, arguments.bundle, arguments.variant)}
        kinds = ["process"] + ["actor of Ray"] * (importlib.util.find_spec("ray") is not None)
        for kind in kinds:
            for workers in (1, 2):
                flags = ["--variant", arguments.variant, "--processes", str(workers)]
                flags += ["--ray"] * (kind != "process")
                several = (
                    kind.replace("process", "processes").replace("actor", "actors") if workers > 1 else kind
                )
                ways[f"{workers} {several}"] = partial(mapped, arguments.bundle, flags)
        took: dict[tuple[str, int], list[float]] = {(way, size): [] for way in ways for size in sizes}
        for _ in range(arguments.rounds):
            for (way, size), seconds in took.items():
                seconds.append(ways[way](files[size]))
    small, large = sizes
    each = {way: (median(took[way, large]) - median(took[way, small])) / (large - small) for way in ways}
    lines = table(
        ["", "rows/s", "of the bare loop", "start, s", "a million rows, s"],
        [
            [
                way,
                f"{1 / seconds:,.0f}",
                f"{each['bare loop'] / seconds:.2f} x",
                f"{max(0.0, median(took[way, small]) - small * seconds):.1f}",
                f"{1e6 * seconds:,.0f}",
            ]
            for way, seconds in each.items()
        ],
    )
    print("\n".join(lines))
    put(arguments.tables, {"rows": lines})


def written(bundle: Path, rows: int, path: Path) -> Path:
    """Rows of text, in groups as a writer of large files makes them."""
    vocabulary, generator = load(bundle).vocabulary, random.Random(rows)
    assert vocabulary is not None
    texts = [
        "".join(generator.choices(vocabulary.characters, k=generator.randint(8, 56))) for _ in range(rows)
    ]
    pq.write_table(pa.table({"id": range(rows), "text": texts}), path, row_group_size=16 * AT_ONCE)
    return path


def bare(bundle: Path, variant: str, rows: Path) -> float:
    """Seconds in this process."""
    began = time.perf_counter()
    embed = Embed(str(bundle), variant=variant)
    for batch in pq.ParquetFile(rows).iter_batches(AT_ONCE):
        embed({name: batch[name].to_numpy(zero_copy_only=False) for name in batch.schema.names})
    return time.perf_counter() - began


def mapped(bundle: Path, flags: list[str], rows: Path) -> float:
    """Seconds of a command."""
    out = rows.with_name("out.parquet")
    command = [
        sys.executable,
        "-m",
        "steprnn.runtime",
        "map",
        bundle,
        rows,
        "--task",
        "embed",
        "--out",
        out,
        *flags,
    ]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    out.unlink()
    return seconds


if __name__ == "__main__":
    main()
