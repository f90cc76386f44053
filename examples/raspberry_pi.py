"""A loop for a small device: a poem without end, one character at a time, that survives any power cut.

    python examples/raspberry_pi.py lyrics.zip poem.state --beginning 分开 --seconds 1

Stop it, or pull the plug, and start it again: it goes on where it was. `pip install 'steprnn[litert]'` is
all that it needs, and the int8 weights are a quarter of the float32 ones.
"""

from __future__ import annotations

import argparse
import struct
import time
from pathlib import Path

from steprnn.runtime import Sampling, Session, State, load
from steprnn.runtime.atomic import write_bytes
from steprnn.runtime.sampling.sampler import Sampler

HEADER = struct.Struct("<QI")  # how many characters were written, and the token to read next


def main() -> None:
    """Go on from the state file if there is one, else from the beginning."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="a bundle: a folder, a .zip or an installed model")
    parser.add_argument("state", type=Path, help="file that keeps the state")
    parser.add_argument("--beginning", default="分开")
    parser.add_argument("--characters", type=int, default=-1, help="end after so many; -1: never")
    parser.add_argument("--seconds", type=float, default=1.0, help="between two characters")
    arguments = parser.parse_args()
    model = load(arguments.bundle, variant="int8")
    vocabulary = model.vocabulary
    assert vocabulary is not None  # as every character model has one
    if arguments.state.exists():
        data = arguments.state.read_bytes()
        count, token = HEADER.unpack_from(data)
        session = model.session(State.from_bytes(data[HEADER.size :]))  # refuses that of another model
    else:
        session, count = model.session(), 0
        *read, token = vocabulary.encode(arguments.beginning)
        for earlier in read:
            session.step(earlier)
    while arguments.characters != 0:
        arguments.characters -= 1
        logits = session.step(token)[0]
        count += 1
        token = Sampler(Sampling(temperature=0.8), seed=count).choose(logits)  # the same after a restart
        save(arguments.state, count, token, session)
        print(vocabulary.decode([token]), end="", flush=True)
        time.sleep(arguments.seconds)


def save(path: Path, count: int, token: int, session: Session) -> None:
    """Replace the state file at once: it is the old one or the new one, whenever the power goes."""
    write_bytes(path, HEADER.pack(count, token) + session.state.to_bytes())


if __name__ == "__main__":
    main()
