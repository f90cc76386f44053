"""A vector for every row of a Hugging Face dataset, by two processes.

    python examples/datasets_rows.py lyrics.bundle poems.jsonl vectors.parquet

Needs `pip install 'steprnn[litert]' datasets`; tried with datasets 5.2.
"""

from __future__ import annotations

import argparse

from datasets import Dataset, disable_progress_bars

from steprnn.runtime.bulk import Embed


def main() -> None:
    """Read JSON lines that have a text each, and write Parquet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="a bundle: a folder, a .zip or an installed model")
    parser.add_argument("rows", help="JSON lines")
    parser.add_argument("out", help="a Parquet file")
    parser.add_argument("--column", default="text")
    arguments = parser.parse_args()
    disable_progress_bars()
    rows = Dataset.from_json(arguments.rows).with_format("numpy")
    embed = Embed(arguments.bundle, column=arguments.column, normalize=True)
    done = rows.map(embed, batched=True, batch_size=1024, num_proc=2)  # each process loads the bundle
    done.to_parquet(arguments.out)
    print(f"{len(done)} rows, {len(done.filter(lambda row: row['error'] is not None))} with an error")


if __name__ == "__main__":
    main()
