"""Changes of records and of bytes, drawn from a seed."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

VALUES = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**400,
    1.5,
    1e308,
    "",
    "x",
    "\ud800",
    "../x",
    "con",
    "a" * 300,
]
VALUES += [[], {}, [[]], {"": 0}, "next_h", "float64", "int32", [8], [0], [2**20] * 3]


def mutated_json(record: Any, chance: random.Random) -> Any:
    """One to three places of a record changed: another value, one less, one twice, a number beside it."""
    record = json.loads(json.dumps(record))
    for _ in range(chance.randint(1, 3)):
        places: list[tuple[Any, Any]] = []
        waiting = [record]
        while waiting:
            value = waiting.pop()
            inside = list(value.items() if isinstance(value, dict) else enumerate(value))
            places += [(value, key) for key, _ in inside]
            waiting += [inner for _, inner in inside if isinstance(inner, dict | list)]
        if not places:
            return record
        holder, key = chance.choice(places)
        what = chance.randrange(5)
        if what == 0:
            del holder[key]
        elif what == 1 and type(holder[key]) is int:
            holder[key] += chance.choice([-1, 1, 7])
        elif what == 2 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif what == 3 and isinstance(holder, dict):
            holder[chance.choice(["x", "NAME", "", "a/b", "a\\b"])] = copy.deepcopy(holder[key])
        else:
            holder[key] = copy.deepcopy(chance.choice(VALUES))
    return record


def mutated_bytes(data: bytes, chance: random.Random, most: int = 6) -> bytes:
    """Bytes changed, numbers set to extremes, a part cut out, doubled or lost at the end, `most` times."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, most)):
        at = chance.randrange(len(changed) or 1)
        what = chance.randrange(5)
        if what == 0:
            changed[at : at + 1] = bytes([chance.randrange(256)])
        elif what == 1:
            changed[at : at + 4] = chance.choice([b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", b"\0\0\0\x80"])
        elif what == 2:
            del changed[at : at + chance.randint(1, 40)]
        elif what == 3:
            changed[at:at] = changed[at : at + chance.randint(1, 40)]
        else:
            del changed[chance.randrange(len(changed) or 1) :]
    return bytes(changed)
