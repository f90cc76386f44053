"""What may stand in manifest.json: the whole of it is judged before anything is made of it.

docs/bundle-format.md is the specification; this file follows it. Each function raises `ValueError` in words.
"""

from __future__ import annotations

import math
import re
from typing import Any

from ..spec import NEXT

DIGITS = re.compile(r"[0-9a-f]{64}")
WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")  # of a format or a variant
DTYPES = {"inputs": ("float32", "int32"), "states": ("float32",), "outputs": ("float32",)}
MOST_AXES = 8
MOST_NUMBERS = 2**28  # in the arrays of one row: a gigabyte
MOST_TENSORS = 4096
MOST_BYTES = 2**40  # of a file
# Names that Windows takes for a device, whatever follows after a point.
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789¹²³")}


def check_manifest(record: dict[str, Any]) -> None:
    """Refuse what a bundle of version 1 or 2 cannot hold."""
    expect(isinstance(record["model"], str) and DIGITS.fullmatch(record["model"]), "model is no sha256")
    expect(isinstance(record["about"], dict), "about is no object")
    _check_step(record["step"])
    _check_files(record["files"])
    _check_artefacts(record["artefacts"])
    if record.get("start") is not None:
        _check_start(record["start"], record["step"]["states"])
    sizes = record.get("read_bytes", {})
    expect(isinstance(sizes, dict), "read_bytes is no object")
    for name, size in sizes.items():
        expect(is_whole(size, 0, MOST_BYTES), f"read_bytes of {name!r} is {size!r}")
    _check_positions(record)
    _check_scales(record)


def _check_step(step: Any) -> None:
    expect(isinstance(step, dict), "step is no object")
    names: list[str] = []
    numbers = 0
    for part, dtypes in DTYPES.items():
        expect(isinstance(step[part], list) and len(step[part]) <= MOST_TENSORS, f"{part} is no list")
        for tensor in step[part]:
            expect(isinstance(tensor, dict), f"one of {part} is no object")
            name, shape = tensor["name"], tensor["shape"]
            expect(isinstance(name, str) and 0 < len(name) <= 255 and name.isprintable(), f"name {name!r}")
            expect(
                tensor["dtype"] in dtypes, f"{name} is {tensor['dtype']!r}, expected {' or '.join(dtypes)}"
            )
            expect(isinstance(shape, list) and len(shape) <= MOST_AXES, f"the shape of {name} is {shape!r}")
            fits = all(is_whole(n, 1, MOST_NUMBERS) for n in shape)
            expect(fits and math.prod(shape) <= MOST_NUMBERS, f"the shape of {name} is {shape!r}")
            numbers += math.prod(shape)
            names.append(name)
            if part == "states":
                expect(tensor["next"] == NEXT + name, "a state's next name is not next_<name>")
                names.append(NEXT + name)
            if part == "inputs" and tensor.get("tokens") is not None:
                tokens = tensor["tokens"]
                expect(
                    is_whole(tokens, 1, 2**31) and tensor["dtype"] == "int32", f"tokens of {name}: {tokens!r}"
                )
            expect(isinstance(tensor.get("static", False), bool), f"static of {name} is no truth value")
    expect(step["inputs"] and step["outputs"], "a step without inputs, or without outputs")
    expect(numbers <= MOST_NUMBERS, f"a row of the step has {numbers:,} numbers")
    expect(len(set(names)) == len(names), f"a name stands twice among {', '.join(sorted(names)[:20])}")


def _check_start(start: Any, states: Any) -> None:
    """What computes the first states has none itself, and each of its outputs is one of the step's."""
    _check_step(start)
    _check_artefacts(start["artefacts"], "start")
    expect(not start["states"], "the start has states of its own")
    shapes = {state["name"]: state["shape"] for state in states}
    for output in start["outputs"]:
        fits = shapes.get(output["name"]) == output["shape"]
        expect(fits, f"the start gives {output['name']} {output['shape']}, which is no state of the step")


def _check_files(files: Any) -> None:
    expect(isinstance(files, dict), "files is no object")
    seen: set[str] = set()
    for name, record in files.items():
        expect(isinstance(record, dict), f"files has no record of {name!r}")
        expect(is_whole(record["bytes"], 0, MOST_BYTES), f"{name!r} has {record['bytes']!r} bytes")
        digest = record["sha256"]
        expect(isinstance(digest, str) and DIGITS.fullmatch(digest), f"{name!r} has the sha256 {digest!r}")
        expect(name.casefold() not in seen, f"{name!r} stands there twice but for upper and lower case")
        seen.add(name.casefold())
    for name in seen:
        above = name.rpartition("/")[0]
        while above:
            expect(above not in seen, f"{above!r} is a file and a folder")
            above = above.rpartition("/")[0]


def _check_artefacts(artefacts: Any, suffix: str = "") -> None:
    """Graphs, each called by its format and its variant, or by its format and `suffix`."""
    expect(
        isinstance(artefacts, list) and 0 < len(artefacts) <= MOST_TENSORS, "artefacts is no list of graphs"
    )
    names: set[str] = set()
    for artefact in artefacts:
        expect(isinstance(artefact, dict), "an artefact is no object")
        for key in ("name", "format", "variant", "method", "path"):
            expect(isinstance(artefact[key], str), f"{key} of an artefact is {artefact[key]!r}")
        name, parts = artefact["name"], (artefact["format"], artefact["variant"])
        expect(all(WORD.fullmatch(part) for part in parts), f"an artefact of {' '.join(parts)!r}")
        called = f"{parts[0]}-{suffix or parts[1]}"
        expect(name == called, f"the artefact {name!r} is of {' '.join(parts)}")
        expect(name not in names, f"the artefact {name} stands there twice")
        names.add(name)


def _check_positions(record: dict[str, Any]) -> None:
    """Each name of the step, or of the start, once on its side: a swap of h and c raises nothing later."""
    positions, start = record.get("positions", {}), record.get("start")
    expect(isinstance(positions, dict), "positions is no object")
    steps = [(artefact["name"], record["step"]) for artefact in record["artefacts"]]
    steps += [(artefact["name"], start) for artefact in start["artefacts"]] if start else []
    for name, step in steps:
        if name not in positions:
            continue
        given = positions[name]
        expect(isinstance(given, dict), f"positions of {name} is no object")
        states = [state["name"] for state in step["states"]]
        inputs = [*(t["name"] for t in step["inputs"]), *states]
        outputs = [*(t["name"] for t in step["outputs"]), *(NEXT + state for state in states)]
        for side, names in (("inputs", inputs), ("outputs", outputs)):
            fits = isinstance(given.get(side), list) and sorted(map(str, given[side])) == sorted(names)
            expect(fits, f"positions of {name} has other {side} than {', '.join(names)}")


def _check_scales(record: dict[str, Any]) -> None:
    """Numbers that integers can stand for, and of a state the same before and after a step."""
    scales = record.get("scales", {})
    expect(isinstance(scales, dict), "scales is no object")
    states = [state["name"] for state in record["step"]["states"]]
    for artefact, found in scales.items():
        expect(isinstance(found, dict), f"scales of {artefact!r} is no object")
        for name, scale in found.items():
            fits = isinstance(scale, float) and 0 < scale < math.inf
            expect(fits, f"scales of {artefact!r}: {name} is {scale!r}")
        for state in states:
            same = found.get(state) == found.get(NEXT + state)
            expect(same, f"scales of {artefact!r}: {state} comes back in another")


def is_whole(value: Any, least: int, most: int) -> bool:
    """Whether it is a whole number within bounds; JSON's true and 1.0 are none."""
    return type(value) is int and least <= value <= most


def expect(fits: object, otherwise: str) -> None:
    """Raise `ValueError` where something does not fit."""
    if not fits:
        raise ValueError(otherwise if len(otherwise) <= 300 else f"{otherwise[:300]}...")


def is_inside(name: str) -> bool:
    """Whether a file's name, with `/` between folders, is one and stays in its folder on every system."""
    strange = any(
        c in '\\:*?"<>|' or c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in name
    )
    return not strange and all(map(_is_name, name.split("/"))) and len(name) <= 1024


def _is_name(part: str) -> bool:
    """Whether a part of a path is a name on every system, and of a length that one can be given."""
    device = part.partition(".")[0].rstrip(" ").casefold() in DEVICES
    return part not in ("", ".", "..") and part[-1] not in ". " and not device and len(part.encode()) <= 255
