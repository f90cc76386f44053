"""The tutorials as a new user meets them: their blocks are run, in order, in a clean clone.

    python tests/journeys/run.py              # all, with the whole of steprnn (minutes)
    python tests/journeys/run.py first-text   # from `git clone` to the first text, with the runtime alone

Shows each command and what a person sees of it. Exits 1 where one fails or the first text takes too long.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"
ORDER = ("first-text", "book", "keras-model", "device", "proof")
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"`(\w+\.py)`")
INSTALL = "python3 -m venv .venv\n. .venv/bin/activate\npip install --quiet '.[all]'\n"
LONGEST = 120  # seconds from `git clone` to the first text, on two cores


def script(text: str) -> str:
    """A shell script of a tutorial: its commands, and its programs written to the files that it names."""
    parts, done = ["set -e"], 0
    for block in BLOCK.finditer(text):
        kind, body = block.groups()
        if kind == "python":
            named = FILE.findall(text[done : block.start()])
            if not named:
                raise ValueError(f"a program has no name: {body.splitlines()[0]}")
            parts.append(f"cat > {named[-1]} <<'PROGRAM'\n{body}PROGRAM")
        else:
            for command in body.splitlines():
                parts.append(f"printf '\\n$ %s\\n' {quoted(command)}\n{command}")
        done = block.end()
    return "\n".join(parts) + "\n"


def quoted(text: str) -> str:
    """A word of the shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def main() -> int:
    """Clone, run, and tell the time of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ORDER)}")
    names = parser.parse_args().names or ORDER
    installs = {"book", "first-text"} & {*names}  # these two say how
    begins = "" if installs else INSTALL
    with tempfile.TemporaryDirectory(prefix="steprnn-journeys-") as folder:
        clone = Path(folder) / "steprnn"
        for number, name in enumerate(names):
            started = time.monotonic()
            if number == 0:
                subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
            text = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
            activate = "test ! -d .venv || . .venv/bin/activate\n"
            ran = subprocess.run(["sh", "-c", begins + activate + script(text)], cwd=clone, check=False)
            begins, seconds = "", time.monotonic() - started
            sys.stdout.write(f"\n== {name}: {seconds:.0f} s, exit code {ran.returncode}\n")
            sys.stdout.flush()
            if ran.returncode or (name == "first-text" and number == 0 and seconds > LONGEST):
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
