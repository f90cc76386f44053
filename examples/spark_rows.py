"""A score for every row of a Spark table, by mapInPandas.

    python examples/spark_rows.py lyrics.bundle poems.jsonl scores

Needs Java 17 and `pip install 'steprnn[litert]' pyspark pandas pyarrow`; tried with pyspark 4.3.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession

from steprnn.runtime.bulk import Score

ADDED = "log_probability double, perplexity double, scored long, error string"


def main() -> None:
    """Read JSON lines that have a text each, and write a folder of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="a bundle that every executor finds there")
    parser.add_argument("rows", help="JSON lines, or a folder of them")
    parser.add_argument("out", help="a folder")
    arguments = parser.parse_args()
    bundle = str(Path(arguments.bundle).absolute())

    def score(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        columns = Score(bundle)  # once a task, not once a frame
        for frame in frames:
            yield pd.DataFrame(columns({name: frame[name].to_numpy() for name in frame}))

    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    rows = spark.read.json(arguments.rows)
    before = ", ".join(f"`{name}` {kind}" for name, kind in rows.dtypes)
    rows.mapInPandas(score, f"{before}, {ADDED}").write.json(arguments.out)
    spark.stop()


if __name__ == "__main__":
    main()
