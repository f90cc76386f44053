"""A score for every row that Apache Beam reads, on any of its runners.

    python examples/beam_rows.py lyrics.bundle poems.jsonl scores

Needs `pip install 'steprnn[litert]' apache-beam`; tried with apache-beam 2.77.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np

from steprnn.runtime.bulk import Score


class ScoreRows(beam.DoFn):
    """Batches of rows with a text each, and what Score adds to them."""

    def __init__(self, bundle: str) -> None:
        self.bundle = bundle

    def setup(self) -> None:
        """Load the bundle once a worker, not once a batch."""
        self.score = Score(self.bundle)

    def process(self, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The same rows with more columns."""
        columns = self.score({name: np.array([row[name] for row in rows], object) for name in rows[0]})
        lists = [column.tolist() for column in columns.values()]
        for values in zip(*lists, strict=True):  # JSON has no NaN
            yield {name: None if v != v else v for name, v in zip(columns, values, strict=True)}


def main() -> None:
    """Read JSON lines that have a text each, and write JSON lines; flags of Beam go to Beam."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="a bundle that every worker finds there")
    parser.add_argument("rows", help="JSON lines, or a pattern of them")
    parser.add_argument("out", help="how the files begin that are written")
    arguments, rest = parser.parse_known_args()
    with beam.Pipeline(argv=rest) as pipeline:
        (
            pipeline
            | beam.io.ReadFromText(arguments.rows)
            | beam.Map(json.loads)
            | beam.BatchElements(min_batch_size=64, max_batch_size=1024)
            | beam.ParDo(ScoreRows(str(Path(arguments.bundle).absolute())))
            | beam.Map(json.dumps, ensure_ascii=False)
            | beam.io.WriteToText(arguments.out, file_name_suffix=".jsonl")
        )


if __name__ == "__main__":
    main()
