"""All cases, and what became of each when they were last measured."""

from __future__ import annotations

import json
from pathlib import Path

from . import cells, conditioned, control, forecasting, keras2, speech, text
from .case import CASES
from .judge import Outcome

FAMILIES = {
    "text": "Text",
    "speech": "Sound",
    "forecasting": "Measurements",
    "control": "Acting and seeing",
    "conditioned": "Told something once, and music",
    "cells": "Cells and layers of papers",
    "keras2": "Files of Keras 2",
}
MODULES = (cells, conditioned, control, forecasting, keras2, speech, text)
OUTCOMES = Path(__file__).with_name("outcomes.json")

__all__ = ["CASES", "FAMILIES", "MODULES", "OUTCOMES", "recorded", "write"]


def recorded() -> dict[str, Outcome]:
    """Outcomes by the name of the case, as `python tests/zoo/table.py --measure` wrote them."""
    record = json.loads(OUTCOMES.read_text(encoding="utf-8")) if OUTCOMES.is_file() else {}
    return {name: Outcome(**outcome) for name, outcome in record.items()}


def write(outcomes: dict[str, Outcome]) -> None:
    """Record outcomes in the order of the cases; how close an exported one came is not kept."""
    record = {}
    for case in CASES:
        if case.name in outcomes:
            outcome = outcomes[case.name]
            record[case.name] = {"kind": outcome.kind, "message": outcome.message}
            if outcome.kind == "exported":
                record[case.name]["message"] = ""
            if outcome.left_out:
                record[case.name]["left_out"] = outcome.left_out
    OUTCOMES.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
