"""`steprnn score`: how likely each text is, a line of JSON for each."""

from __future__ import annotations

import argparse
from typing import Any

from ..model import Model
from ..texts import tasks
from ..texts.batches import Task
from ..texts.reading import Score, perplexity
from . import _texts

HELP = "tell how likely texts are, as JSON lines"
EXAMPLE = "  steprnn score lyrics.bundle lines.txt | jq 'select(.perplexity > 20).text'"
NEEDS: dict[str, str] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the texts come from, and the engine."""
    _texts.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Score each text to stdout, and tell the perplexity of all on stderr."""
    total, scored = 0.0, 0

    def task(model: Model) -> Task[Score]:
        return tasks.scoring(model, arguments.unknown)

    def write(fields: dict[str, Any], score: Score) -> None:
        nonlocal total, scored
        _texts.put(
            fields,
            log_probability=score.log_probability,
            perplexity=score.perplexity,
            scored=len(score.characters),
        )
        total += score.log_probability
        scored += len(score.characters)

    def sum_up() -> str:
        return f", perplexity {perplexity(total, scored):.2f} of {scored:,} characters" if scored else ""

    return _texts.run(arguments, task, write, sum_up)
