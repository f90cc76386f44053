"""A report for people: tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..markdown import table
from .report import Report

Row = Mapping[str, Any]
Columns = Mapping[str, Callable[[Row], str]]

RAW = "raw_64_tokens_per_second"
ONE: Columns = {
    "reads, kB": lambda row: read(row),
    "floor": lambda row: number(row["floor_us"]),
    "engine alone": lambda row: spread(row, "raw_us"),
    "generate": lambda row: spread(row, "generate_us"),
    "to engine": lambda row: number(row["generate_to_raw"], "{:.2f} x"),
    "stream to engine": lambda row: number(row["stream_to_raw"], "{:.2f} x"),
    "temperature adds": lambda row: number(row["temperature_adds_us"]),
    "all filters add": lambda row: number(row["filters_adds_us"]),
    "prompt": lambda row: number(row["prompt_us"]),
    "tokens/s": lambda row: number(row["tokens_per_second"], "{:,.0f}"),
}
SESSION: Columns = {
    "engine alone": lambda row: number(row["raw_us"]),
    "session.step": lambda row: number(row["session_us"]),
    "adds": lambda row: number(row["session_adds_us"]),
    "session.run, 64 steps at once": lambda row: number(row["block_us"]),
    "times as fast": lambda row: number(row["session_to_block"], "{:.2f} x"),
}
MANY: Columns = {
    "engine alone": lambda row: number(row[RAW], "{:,.0f}"),
    "generate": lambda row: share(row, "generate_64_tokens_per_second"),
    "temperature": lambda row: share(row, "temperature_64_tokens_per_second"),
    "all filters": lambda row: share(row, "filters_64_tokens_per_second"),
}
OWN_PROCESS: Columns = {
    "file, bytes": lambda row: f"{row['bytes']:,}",
    "load, ms": lambda row: number(row["load_ms"]),
    "peak memory, MB": lambda row: number(row["peak_bytes"] and row["peak_bytes"] / 1e6),
    "method": lambda row: str(row["method"]),
}


def markdown(report: Report) -> list[str]:
    """The machine, then batch 1, batch 64, and what it takes to be there."""
    machine = report.machine
    caches = ", ".join(f"{name} {size / 1024:,.0f} kB" for name, size in machine.caches.items())
    core = "not pinned to a core" if report.core is None else f"pinned to core {report.core}"
    busy = "" if report.share is None else f"; the core was ours {report.share:.0%} of the time"
    return [
        f"- {machine.processor}, {machine.cores} cores; {caches or 'caches unknown'}; {machine.system}",
        f"- {' '.join(machine.flags) or 'CPU flags unknown'}",
        f"- one thread, {core}{busy}; medians of {report.rounds} rounds taken in turn",
        "",
        "Batch 1, microseconds a step. In brackets: the best round, and what nine of ten rounds are below. "
        "The floor is the time to read the weights once.",
        "",
        *_table(report.rows, ONE),
        "",
        "A session of one row, microseconds a step.",
        "",
        *_table(report.rows, SESSION),
        "",
        "Batch 64, tokens a second, and the share of the engine's own.",
        "",
        *_table(report.rows, MANY),
        "",
        "In a process of its own.",
        "",
        *_table(report.rows, OWN_PROCESS),
    ]


def _table(rows: Sequence[Row], columns: Columns) -> list[str]:
    """A line for each engine and variant."""
    cells = [[f"{row['engine']} {row['variant']}", *(of(row) for of in columns.values())] for row in rows]
    head = ["", *columns]
    return table(head, cells, words=[i for i, name in enumerate(head) if name in ("", "method")])


def number(value: float | None, form: str = "{:,.1f}") -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else form.format(value)


def read(row: Row) -> str:
    """The bytes of weights that a step reads, and the cache that holds them where it is known."""
    size = row["read_bytes"]
    return "-" if size is None else f"{size / 1e3:,.1f} {row['read_from']}".strip()


def spread(row: Row, name: str) -> str:
    """The median, with the best and the ninth of ten in brackets."""
    if row[name] is None:
        return "-"
    return f"{row[name]:,.1f} ({row[name + '_min']:,.1f}, {row[name + '_p90']:,.1f})"


def share(row: Row, name: str) -> str:
    """Tokens a second, and how much that is of the engine's own."""
    return "-" if row[name] is None else f"{row[name]:,.0f} ({row[name] / row[RAW]:.0%})"
