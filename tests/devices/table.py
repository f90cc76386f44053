"""The tables of docs/devices.md: every model on every board whose tools are here.

python tests/devices/table.py docs/devices.md
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

from devices import boards, estimate, models  # noqa: E402
from tables import put  # noqa: E402

from steprnn.export.inspect.device import MEASURED  # noqa: E402

SHORT = ("-USTEPS", "-DSTEPS=1", "-UCOUNTED", "-DCOUNTED=8")


def main() -> None:
    """Run all, and write the tables into the document that is named."""
    missing = [b for b in boards.BOARDS if b.missing()]
    if missing:
        packages = " ".join(sorted({p for b in missing for p in b.packages.split()}))
        sys.exit(f"{', '.join(b.name for b in missing)}: no tools here; run: apt install {packages}")
    instructions, sizes = {}, {b.name: (0, 0) for b in boards.BOARDS}
    steps: dict[str, list[tuple[Path, int]]] = {b.name: [] for b in boards.BOARDS}
    held = []
    with tempfile.TemporaryDirectory() as folder:
        for model in models.packaged(Path(folder)):
            ran = {}
            for board in boards.BOARDS:
                if model.program_bytes > board.room:
                    continue
                told = boards.run(board, model.folder, Path(folder) / "build")
                if told.hash != model.hash(board.steps):
                    sys.exit(f"{board.name}, {model.name} {model.variant}: other bits than here")
                ran[board.name] = told
                code, stack = sizes[board.name]
                sizes[board.name] = max(code, told.code), max(stack, told.stack)
                print(f"{board.name}\t{model.name} {model.variant}\t{told}", flush=True)  # noqa: T201
            instructions[f"{model.name}, {model.variant}"] = ran
            held.append((model, ran["cortex-m4f"]))
            for name, told in ran.items():
                steps[name].append((model.program, told.instructions))
        for path, out in estimate.cells(Path(folder)):
            for board in boards.BOARDS:
                if board.unit and path.stat().st_size <= board.room:
                    told = boards.run(
                        board,
                        out,
                        Path(folder) / "build",
                        SHORT,
                    )
                    steps[board.name].append((path, told.instructions))
            print(out.name, flush=True)  # noqa: T201
        _record(steps, sizes)
    put([Path(sys.argv[1])], _tables(instructions, sizes, held))


def _record(steps: dict[str, list[tuple[Path, int]]], sizes: dict[str, tuple[int, int]]) -> None:
    """Write what `steprnn inspect --target` estimates from."""
    found = {}
    for board in boards.BOARDS:
        if board.unit:
            code, stack = sizes[board.name]
            told = {"unit": board.unit, "padded": board.padded, "code": code, "stack": stack}
            found[board.name] = told | estimate.fitted(steps[board.name], board.padded)
    MEASURED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _tables(
    instructions: dict[str, dict[str, boards.Run]],
    sizes: dict[str, tuple[int, int]],
    held: list[tuple[models.Packaged, boards.Run]],
) -> dict[str, list[str]]:
    counted = [b for b in boards.BOARDS if b.unit]
    steps = [
        f"| a step | {' | '.join(b.name for b in counted)} |",
        f"| --- |{' ---: |' * len(counted)}",
    ]
    for name, ran in instructions.items():
        cells = (f"{ran[b.name].instructions:,}" if b.name in ran else "" for b in counted)
        steps.append(f"| {name} | {' | '.join(cells)} |")
    of_boards = ["| board | processor | code | stack |", "| --- | --- | ---: | ---: |"]
    for board in boards.BOARDS:
        cells = (f"{n:,}" if board.unit else "" for n in sizes[board.name])
        of_boards.append(f"| {board.name} | {board.processor} | {' | '.join(cells)} |")
    of_models = ["| model | program | arena |", "| --- | ---: | ---: |"]
    for model, told in held:
        of_models.append(f"| {model.name}, {model.variant} | {told.program:,} | {told.arena:,} |")
    return {"device-steps": steps, "device-boards": of_boards, "device-models": of_models}


if __name__ == "__main__":
    main()
