"""The picture of a run: perplexity over the epochs."""

from __future__ import annotations

import io

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from .checkpoint import Epoch


def draw(history: list[Epoch], best_epoch: int | None) -> bytes:
    """A PNG of 800 x 450 pixels; the perplexity on a logarithmic axis, that of held-out text beside it."""
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    epochs = [entry["epoch"] for entry in history]
    axes.plot(epochs, [entry["perplexity"] for entry in history], label="training text")
    if history and "held_out_perplexity" in history[0]:
        axes.plot(epochs, [entry["held_out_perplexity"] for entry in history], label="held-out text")
    if best_epoch is not None:
        axes.axvline(best_epoch, color="grey", linestyle=":", label=f"best: epoch {best_epoch}")
    axes.set(xlabel="epoch", ylabel="perplexity", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))  # 1,000 and not 10^3
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
