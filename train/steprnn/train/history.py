"""The picture of a run: perplexity over the epochs."""

from __future__ import annotations

import io

from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

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
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
