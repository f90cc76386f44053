"""docs/models.md: which published models are exported, and why the others are not.

python tests/zoo/table.py > docs/models.md
python tests/zoo/table.py --measure [name ...]  # run all or some, and record what became of them
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from zoo.families import CASES, FAMILIES, recorded, write
    from zoo.judge import Outcome, measured
else:
    from .families import CASES, FAMILIES, recorded, write
    from .judge import Outcome, measured

INTRODUCTION = """\
# Published models, tried

{count} recurrent and causal models that people have published, each rebuilt small as its maker wrote it: the
same layers, options, topology and inputs, fewer units. {exported} are exported: over 100 chained steps, for
one row and for three, their step says in each format what the model says in its own framework; {programs} of
them have a step program too, which is held to the same. {refused} have no step and are refused by name, with
the reason. {not_yet} are not yet as their maker would want.

`STEPRNN_ZOO=all pytest tests/zoo` tries them all; `python tests/zoo/table.py` writes this page.
"""


def table() -> str:
    """The whole document."""
    count = {
        "count": len(CASES),
        "exported": sum(c.not_yet is None and c.refused is None for c in CASES),
        "refused": sum(c.not_yet is None and c.refused is not None for c in CASES),
        "not_yet": sum(c.not_yet is not None for c in CASES),
    }
    outcomes = recorded()
    exported = [outcome for outcome in outcomes.values() if outcome.kind == "exported"]
    count["programs"] = sum(not outcome.left_out for outcome in exported)
    lines = [INTRODUCTION.format(**count)]
    for family, title in FAMILIES.items():
        lines += [
            f"## {title}",
            "",
            "| architecture | source | made of | result |",
            "| --- | --- | --- | --- |",
        ]
        for case in (c for c in CASES if c.family == family):
            result = "exported" if case.refused is None else f"refused: {outcomes[case.name].message}"
            if outcomes[case.name].left_out:
                result += f", without a program: {outcomes[case.name].left_out}"
            if case.not_yet is not None:
                result = f"not yet: {case.not_yet}"
                if outcomes[case.name].kind == "silently wrong":
                    result += " (**exported, and wrong**)"
            cells = (case.name.replace("_", " "), case.source, case.made_of, result)
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        lines.append("")
    return "\n".join(lines)


def measure(names: list[str]) -> None:
    """Run the cases of these names, or all, and record what became of them."""
    outcomes: dict[str, Outcome] = recorded()
    for case in CASES:
        if names and case.name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcome = outcomes[case.name] = measured(case, Path(folder))
        fits = (outcome.kind == case.wanted) == (case.not_yet is None)
        mark = "" if fits else "  <-- not as its case says"
        sys.stderr.write(f"{case.family} {case.name}: {outcome.kind}: {outcome.message}{mark}\n")
        write(outcomes)


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure(sys.argv[2:])
    else:
        sys.stdout.write(table())
