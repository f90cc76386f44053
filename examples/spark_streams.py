"""A stream for each device in Spark: the state of each is a value that Spark keeps in its checkpoint.

    python examples/spark_streams.py lyrics.bundle arriving out checkpoint

Files of JSON lines `{"device": "a", "time": 0, "x": 7}` arrive in a folder; x is a token of the model. Ended
or killed and started again, it goes on with the states that belong to the files it has read. Needs Java 17
and `pip install 'steprnn[litert]' pyspark pandas pyarrow protobuf`; tried with pyspark 4.3.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql.streaming.stateful_processor import StatefulProcessor, StatefulProcessorHandle

from steprnn.runtime import State, load

ROCKS = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"  # which the API needs


class Steps(StatefulProcessor):
    """Steps each device through its rows, in the order of their times."""

    def __init__(self, bundle: str) -> None:
        self.bundle = bundle

    def init(self, handle: StatefulProcessorHandle) -> None:
        """Once in each task: the bundle, and where Spark keeps the state."""
        self.model = load(self.bundle)
        self.state = handle.getValueState("state", "data binary")

    def handleInputRows(self, key: Any, rows: Iterator[pd.DataFrame], timers: Any) -> Iterator[pd.DataFrame]:  # noqa: N802
        """The rows of one device since the last time."""
        kept = self.state.get()
        session = self.model.session(State.from_bytes(bytes(kept[0])) if kept else None)
        frame = pd.concat(rows).sort_values("time")
        steps = [session.step(int(x))[0] for x in frame["x"]]
        self.state.update((session.state.to_bytes(),))
        likeliest = [int(y.argmax()) for y in steps]
        yield pd.DataFrame({"device": key[0], "time": frame["time"], "next": likeliest})

    def close(self) -> None:
        """Nothing is open."""


def main() -> None:
    """Take what has arrived, a file at a time, and end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="a bundle that every executor finds there")
    parser.add_argument("arriving", help="a folder of files of JSON lines")
    parser.add_argument("out", help="a folder of JSON lines with the likeliest next token")
    parser.add_argument("checkpoint", help="a folder that Spark keeps the states in")
    arguments = parser.parse_args()
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")  # for one machine
        .config("spark.sql.streaming.stateStore.providerClass", ROCKS)
        .getOrCreate()
    )
    rows = spark.readStream.schema("device string, time long, x int").option("maxFilesPerTrigger", 1)
    steps = Steps(str(Path(arguments.bundle).absolute()))
    done = (
        rows.json(arguments.arriving)
        .groupBy("device")
        .transformWithStateInPandas(steps, "device string, time long, next int", "Append", "None")
    )
    writing = done.writeStream.format("json").option("checkpointLocation", arguments.checkpoint)
    writing.trigger(availableNow=True).start(arguments.out).awaitTermination()
    spark.stop()


if __name__ == "__main__":
    main()
