"""Mutants of everything that is read from a stranger: `python tests/hostile/fuzz.py --count 1000 --seed 1`.

Each kind runs in a child with a limit on its memory; the child tells before each mutant which it is, so that
a crash and a hang have a name. A mutant is refused (an error of steprnn, in one line), accepted right (what
it says is what the unchanged one says, or it was meant to change), wrong, a traceback, a crash or a hang.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # it is a program, which a test imports too

from changes import mutated_bytes, mutated_json
from graphs import mutated_onnx, mutated_tflite
from wire import Wire

from steprnn.runtime import Model, State, SteprnnError, load
from steprnn.runtime.bundle.manifest import FileRecord
from steprnn.runtime.engines import open_engine
from steprnn.runtime.files import INITIAL, MANIFEST, VOCABULARY
from steprnn.runtime.package import zip as package_zip
from steprnn.runtime.parity.reference import Reference
from steprnn.runtime.spec import StepSpec

TINY = Path(__file__).parents[1] / "tiny" / "bundle"
OUTCOMES = ("refused", "right", "wrong", "traceback", "crash", "hang")
MEMORY = 2**31  # above what the child has when it begins: the address space, not what is used
SECONDS = 30  # for one mutant


def said(model: Model) -> str:
    """What a model writes, greedy and drawn."""
    return model.generate("分", 8) + model.generate("分", 8, seed=1, temperature=1.0)


class Fuzzer:
    """Makes and tries mutants of one kind, in one process."""

    def __init__(self, kind: str, place: Path, graphs: Path | None = None) -> None:
        self.graphs = sorted(graphs.glob(f"*/*.{kind.partition('-')[0]}")) if graphs else []
        self.folder = place / "tiny.bundle"
        shutil.copytree(TINY, self.folder)
        self.manifest = json.loads((TINY / MANIFEST).read_text(encoding="utf-8"))
        self.packed = package_zip.write(TINY, place / "tiny.zip").read_bytes()
        model = load(TINY, engine="onnx")
        session = model.session()
        session.step(3)
        self.state = session.state.to_bytes()
        self.expected = {engine: said(load(TINY, engine=engine)) for engine in ("onnx", "litert")}
        self.model = model
        self.wire: Wire | None = None  # to a server of its own
        self.try_one: Callable[[random.Random], str] = getattr(self, f"try_{kind.replace('-', '_')}")

    def opened(self, engine: str) -> str:
        return "right" if said(load(self.folder, engine=engine)) == self.expected[engine] else "wrong"

    def put(self, name: str, data: bytes) -> None:
        """A file with its record, so that what reads it is reached."""
        (self.folder / name).write_bytes(data)
        record = json.loads(json.dumps(self.manifest))
        record["files"][name] = vars(FileRecord.of(self.folder / name))
        (self.folder / MANIFEST).write_text(json.dumps(record), encoding="utf-8")

    def try_manifest(self, chance: random.Random) -> str:
        record = mutated_json(self.manifest, chance)
        (self.folder / MANIFEST).write_text(json.dumps(record), encoding="utf-8")
        return self.opened(chance.choice(["onnx", "litert"]))

    def try_manifest_bytes(self, chance: random.Random) -> str:
        (self.folder / MANIFEST).write_bytes(mutated_bytes((TINY / MANIFEST).read_bytes(), chance))
        return self.opened("onnx")

    def try_vocabulary(self, chance: random.Random) -> str:
        record = mutated_json(json.loads((TINY / VOCABULARY).read_text(encoding="utf-8")), chance)
        self.put(VOCABULARY, json.dumps(record).encode())
        load(self.folder, engine="onnx").generate("分", 8)
        return "right"  # it means what it says now

    def try_npz(self, chance: random.Random) -> str:
        self.put(INITIAL, mutated_bytes(self.state, chance))
        said(load(self.folder, engine="onnx"))
        return "right"

    def try_golden(self, chance: random.Random) -> str:
        path = self.folder / "golden.npz"
        path.write_bytes(mutated_bytes((TINY / "golden.npz").read_bytes(), chance))
        Reference.read(path)
        return "right"

    def try_state(self, chance: random.Random) -> str:
        state = State.from_bytes(mutated_bytes(self.state, chance))
        self.model.session(state).step(5)
        return "right"

    def try_zip(self, chance: random.Random) -> str:
        path = self.folder.with_suffix(".zip")
        path.write_bytes(mutated_bytes(self.packed, chance))
        return "right" if said(load(path, engine="onnx")) == self.expected["onnx"] else "wrong"

    def try_onnx(self, chance: random.Random) -> str:
        self.put("step.onnx", mutated_bytes((TINY / "step.onnx").read_bytes(), chance))
        said(load(self.folder, engine="onnx"))
        return "right"  # another graph, which says what it says

    def try_onnx_fields(self, chance: random.Random) -> str:
        self.put("step.onnx", mutated_onnx((TINY / "step.onnx").read_bytes(), chance))
        said(load(self.folder, engine="onnx"))
        return "right"

    def try_tflite(self, chance: random.Random) -> str:
        self.put("step.tflite", mutated_bytes((TINY / "step.tflite").read_bytes(), chance))
        said(load(self.folder, engine="litert"))
        return "right"

    def try_tflite_fields(self, chance: random.Random) -> str:
        self.put("step.tflite", mutated_tflite((TINY / "step.tflite").read_bytes(), chance))
        said(load(self.folder, engine="litert"))
        return "right"

    def try_onnx_layers(self, chance: random.Random) -> str:
        return self.stepped("onnx", mutated_onnx, chance)

    def try_tflite_layers(self, chance: random.Random) -> str:
        return self.stepped("litert", mutated_tflite, chance)

    def stepped(
        self, engine: str, mutated: Callable[[bytes, random.Random], bytes], chance: random.Random
    ) -> str:
        """A graph of another model, of one row and of three."""
        path = chance.choice(self.graphs)
        spec = StepSpec.from_record(json.loads((path.parent / "spec.json").read_text(encoding="utf-8")))
        mutant = self.folder / path.name
        mutant.write_bytes(mutated(path.read_bytes(), chance))
        opened = open_engine(engine, mutant, spec)
        for batch in (1, 3):
            runner = opened.runner(batch)
            for number in range(3):
                for tensor in spec.inputs:
                    runner.inputs[tensor.name][...] = number % (tensor.tokens or 2)
                runner.run()
        return "right"

    def try_body(self, chance: random.Random) -> str:
        from steprnn.runtime.serve.errors import ApiError
        from steprnn.runtime.serve.protocol import Limits, parse

        asked = {
            "prompt": "分",
            "max_tokens": 3,
            "temperature": 1,
            "n": 2,
            "stop": ["月"],
            "seed": 3,
            "top_p": 0.5,
        }
        data = json.dumps(mutated_json(asked | {"logprobs": 1, "stream_options": {}}, chance)).encode()
        if chance.random() < 0.3:
            data = mutated_bytes(data, chance)
        assert self.model.vocabulary is not None
        try:
            parse(data, "tiny", self.model.vocabulary, Limits())
        except ApiError as error:
            error.body["error"]["message"].encode("utf-8")
            return "refused"
        return "right"

    def try_corpus(self, chance: random.Random) -> str:
        from steprnn.train import corpus

        text = "分开的时候，山外有雨。\r\n" * 30
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("lyrics.txt", text)
        kinds = {"txt": text.encode(), "gz": gzip.compress(text.encode(), mtime=0), "zip": packed.getvalue()}
        ending = chance.choice(list(kinds))
        path = self.folder / f"corpus.{ending}"
        path.write_bytes(mutated_bytes(kinds[ending], chance))
        read = corpus.load(path).text
        fits = ending == "txt" or read == corpus.prepare(text)  # what is packed has a checksum
        return "right" if fits else "wrong"

    def try_checkpoint(self, chance: random.Random) -> str:
        from steprnn.train.checkpoint import Training
        from steprnn.train.resume import Progress, State

        record = {
            "settings": {"units": 8},
            "corpus": {"sha256": "0"},
            "versions": {},
            "history": [{"epoch": 1}],
        }
        Training(**record).write(self.folder)
        path = self.folder / "training.json"
        if chance.random() < 0.5:
            made = json.dumps(mutated_json(json.loads(path.read_bytes()), chance)).encode()
        else:
            made = mutated_bytes(path.read_bytes(), chance)
        path.write_bytes(made)
        arrays = [self.model.initial_state["h"]] * 2
        path = self.folder / "resume.npz"
        State(Progress([], 1.0, 0, 0, 3, 0.5), arrays, arrays, arrays, arrays).write(path)
        path.write_bytes(mutated_bytes(path.read_bytes(), chance))
        try:
            Training.read(self.folder)
        finally:
            State.read(path)
        return "right"

    def try_http(self, chance: random.Random) -> str:
        self.wire = self.wire or Wire(TINY)
        return self.wire.tried(mutated_bytes(self.wire.request, chance, most=2), chance)


EVERY = [name.removeprefix("try_").replace("_", "-") for name in vars(Fuzzer) if name.startswith("try_")]
KINDS = [kind for kind in EVERY if not kind.endswith("-layers")]  # those need graphs


def child(kind: str, seed: int, count: int, graphs: Path | None) -> None:
    """Try mutants `seed` to `seed + count - 1`, a line before and after each."""
    with tempfile.TemporaryDirectory() as place:
        fuzzer = Fuzzer(kind, Path(place), graphs)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for number in range(seed, seed + count):
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            try:
                outcome = fuzzer.try_one(random.Random(number))
            except SteprnnError as error:
                outcome = "traceback" if "\n" in str(error) else "refused"
            except Exception as error:
                outcome = f"traceback {type(error).__name__}: {' '.join(str(error).split())[:100]}"
            sys.stdout.write(f"{outcome}\n")
        sys.stdout.write(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}\n")
        sys.stdout.flush()
        if fuzzer.wire is not None:
            fuzzer.wire.close()
        os._exit(0)  # an engine that was given damaged graphs may not end well


def run(kind: str, seed: int, count: int, graphs: Path | None = None) -> tuple[Counter[str], list[str], int]:
    """Outcomes of a kind, the mutants that are none of refused and right, and the peak in kB."""
    outcomes: Counter[str] = Counter()
    bad: list[str] = []
    peak = 0
    at = seed
    while at < seed + count:
        command = [
            sys.executable,
            __file__,
            "--child",
            kind,
            "--seed",
            str(at),
            "--count",
            str(seed + count - at),
            *(["--graphs", str(graphs)] if graphs else []),
        ]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            number = at - 1
            timer = threading.Timer(SECONDS * 4, process.kill)
            hung = False
            timer.start()
            for line in iter(process.stdout.readline, ""):
                timer.cancel()
                timer = threading.Timer(SECONDS, process.kill)
                timer.start()
                word = line.strip()
                if word.isdigit():
                    number = int(word)
                elif word.startswith("peak "):
                    peak, number = max(peak, int(word[5:])), seed + count
                else:
                    outcomes[word.split()[0]] += 1
                    if word not in ("refused", "right"):
                        bad.append(f"{kind} {number}: {word}")
            hung = not timer.is_alive()
            timer.cancel()
            process.wait()
        if number < seed + count:
            outcome = "hang" if hung else "crash"
            outcomes[outcome] += 1
            bad.append(f"{kind} {number}: {outcome} {process.returncode}")
        at = max(number, at) + 1
    return outcomes, bad, peak


def main() -> int:
    """Every kind; a table, and 1 where anything but a refusal or a right answer came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="mutants of each kind")
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--kinds", nargs="*", choices=EVERY, help="(default: all)")
    parser.add_argument("--graphs", type=Path, help="a folder as layers.py writes it, for the kinds *-layers")
    parser.add_argument("--child", choices=EVERY, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.seed, arguments.count, arguments.graphs)
    kinds = arguments.kinds or (EVERY if arguments.graphs else KINDS)
    failed = []
    out = io.StringIO()
    out.write(f"| kind | tried | {' | '.join(OUTCOMES)} | peak, MB |\n|{' --- |' * (len(OUTCOMES) + 3)}\n")
    for kind in kinds:
        outcomes, bad, peak = run(kind, arguments.seed, arguments.count, arguments.graphs)
        failed += bad
        figures = " | ".join(str(outcomes[outcome]) for outcome in OUTCOMES)
        out.write(f"| {kind} | {arguments.count} | {figures} | {peak // 1000} |\n")
    sys.stdout.write(out.getvalue())
    sys.stderr.writelines(f"{line}\n" for line in failed[:50])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
