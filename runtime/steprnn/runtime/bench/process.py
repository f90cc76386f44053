"""One engine in a process of its own: how long it takes to load, and its peak memory.

`python -m steprnn.runtime.bench.process BUNDLE ENGINE VARIANT` prints both as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from ..loading import load

STATUS = Path("/proc/self/status")


def peak_bytes() -> int | None:
    """The most memory that this process has had resident; None where the system does not tell."""
    if STATUS.is_file():  # getrusage would also count what the process was before it became this program
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024


def main(folder: str, engine: str, variant: str) -> None:
    """Load, take a few steps, and tell."""
    began = time.perf_counter()
    model = load(folder, engine=engine, variant=variant)
    seconds = time.perf_counter() - began
    if model.vocabulary is not None and model.manifest.writes_text:
        model.generate(model.vocabulary.characters[0], 50)
    else:
        with model.runner() as runner:
            runner.run()
    sys.stdout.write(json.dumps({"load_ms": seconds * 1e3, "peak_bytes": peak_bytes()}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
