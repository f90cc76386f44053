"""A poet at the command line: type how a poem begins, and it goes on. An empty line ends it.

python examples/poet.py lyrics.bundle --temperature 0.8 --seed 7
"""

from __future__ import annotations

import argparse
import sys

from steprnn.runtime import SteprnnError, load


def main() -> None:
    """Read beginnings from stdin, one a line, and write the poems to stdout as they come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="a bundle: a folder, a .zip or an installed model")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0, help="poem i has the seed SEED + i")
    parser.add_argument("--length", type=int, default=40, help="characters to write")
    arguments = parser.parse_args()
    model = load(arguments.bundle)
    for number, line in enumerate(sys.stdin):
        if not (beginning := line.strip()):
            break
        try:
            pieces = model.stream(
                beginning,
                arguments.length,
                temperature=arguments.temperature,
                seed=arguments.seed + number,
                repeat_penalty=1.1,
            )
        except SteprnnError as error:  # such as a character that the model has never seen
            sys.stderr.write(f"{error}\n")
            continue
        sys.stdout.write(beginning)
        for piece in pieces:
            sys.stdout.write("\n" if piece == " " else piece)  # the corpus has a space for each line break
            sys.stdout.flush()
        sys.stdout.write("\n\n")


if __name__ == "__main__":
    main()
