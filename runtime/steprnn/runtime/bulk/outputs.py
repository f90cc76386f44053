"""Parts of an output as the bytes of a file each, and the one file that they become."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import new_file
from ..errors import UsageError
from .records import Record, digits, to_json
from .sources import PARQUET

if TYPE_CHECKING:
    import pyarrow

JSON = (".jsonl", ".ndjson")
KINDS = (*JSON, PARQUET)

Results = dict[str, NDArray[Any]]


def encoded(kind: str, rows: list[Record] | pyarrow.Table, results: Results) -> bytes:
    """Rows with their results as a file; raises `UsageError` where that kind has no word for a value."""
    names = rows.column_names if not isinstance(rows, list) else {name for row in rows for name in row.fields}
    if taken := {*names} & results.keys():
        raise UsageError(f"the input has a column {min(taken)!r} already; rename it")
    if kind == PARQUET:
        return _parquet(_table(rows), results)
    return _json(rows, results)


def join(parts: Sequence[Path], out: Path, kind: str) -> None:
    """Make one file of the parts, in their order, which appears whole."""
    with new_file(out) as file:
        if kind != PARQUET:
            for part in parts:
                with part.open("rb") as opened:
                    shutil.copyfileobj(opened, file)
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            schema = pa.unify_schemas([pq.read_schema(part) for part in parts], promote_options="permissive")
            with pq.ParquetWriter(file, schema) as writer:
                for part in parts:
                    table = pq.read_table(part)
                    for name in schema.names:
                        if name not in table.column_names:
                            table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
                    writer.write_table(table.select(schema.names).cast(schema))
        except pa.ArrowException as error:
            raise UsageError(_way_out(error)) from None


def _json(rows: list[Record] | pyarrow.Table, results: Results) -> bytes:
    fields = [row.fields for row in rows] if isinstance(rows, list) else rows.to_pylist()
    columns = {name: _listed(array, results["error"]) for name, array in results.items()}
    lines = []
    try:
        for i, row in enumerate(fields):
            lines.append(to_json(row | {name: column[i] for name, column in columns.items()}))
    except TypeError as error:
        raise UsageError(f"{error}; write .parquet, or leave the column out") from None
    return b"".join(lines)


def _listed(array: NDArray[Any], error: NDArray[Any]) -> list[Any]:
    """A column as JSON has it: null where there is an error."""
    if array is error:
        return list(array)
    values = [digits(row) for row in array.tolist()] if array.ndim == 2 else array.tolist()
    return [value if error[i] is None else None for i, value in enumerate(values)]


def _table(rows: list[Record] | pyarrow.Table) -> pyarrow.Table:
    import pyarrow as pa

    if not isinstance(rows, list):
        return rows
    names = dict.fromkeys(name for row in rows for name in row.fields)
    try:
        return pa.table({name: pa.array([row.fields.get(name) for row in rows]) for name in names})
    except (pa.ArrowException, OverflowError) as error:
        raise UsageError(_way_out(error)) from None


def _parquet(table: pyarrow.Table, results: Results) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    bad = np.array([one is not None for one in results["error"]], np.bool_)
    for name, array in results.items():
        if name == "error":
            column = pa.array(list(array), pa.string())
        elif array.ndim == 2:
            flat = pa.array(array.ravel())
            column = pa.FixedSizeListArray.from_arrays(flat, array.shape[1], mask=pa.array(bad))
        elif array.dtype == object:
            column = pa.array(list(array), pa.string())
        else:
            column = pa.array(array, mask=bad)
        table = table.append_column(name, column)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _way_out(error: Exception) -> str:
    told = " ".join(str(error).split())
    return f"the rows do not make one table ({told}); write .jsonl, which takes each as it is"
