"""A bundle as C: the interpreter, the program as data, and programs that write text or step a signal."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..atomic import new_folder
from ..bundle.manifest import Manifest
from ..bundle.packed import Place
from ..bundle.vocabulary import Vocabulary
from ..engines import open_graph
from ..engines.native.library import HERE, SOURCE, Streams, aligned
from ..errors import UsageError
from ..files import VOCABULARY
from . import targets

Words = np.ndarray[tuple[int, ...], np.dtype[np.uint32]]
MAP, PRODUCT, LSTM, GRU = 1, 3, 5, 6  # kinds of operations: docs/program-format.md
GATES = 1 << 7 | 1 << 8  # tanh and sigmoid: the functions that both take
INCLUDE = re.compile(r'^#include "(\w+\.h)"\n', re.M)
README = """\
# A model in C

`steprnn.h` and `steprnn.c` are the interpreter (Apache-2.0), `model.c` holds the program of model {model}.

{build}

A step of variant {variant}: {flash:,} bytes of constant data, {arena:,} bytes of memory for each stream,
{work:,} operations.
"""


def default_out(bundle: Path) -> Path:
    """Where the sources go if nobody says."""
    return Path("c")


def write(bundle: Place, out: Path, *, variant: str = "float32", target: str = "cmake") -> Path:
    """Write the sources of a bundle to `out` as a target of `targets.py` lays them out, whole or not at all.

    Such a folder is replaced.

    Raises `UsageError` where the bundle has no program of this variant, begins from a start graph, or
    something else is at `out`; `BundleError` where a file is damaged.
    """
    ours = any((out / place / "model.c").is_file() for place in (".", "src"))
    if out.exists() and not (out.is_dir() and (ours or not any(out.iterdir()))):
        raise UsageError(f"{out} exists and has no model.c; choose another --out, nothing was changed")
    manifest = Manifest.read(bundle)
    artefact = manifest.artefact("program", variant)
    if artefact is None or manifest.start is not None:
        held = ", ".join(a.name for a in manifest.artefacts)
        what = "begins from a start graph" if artefact else f"has no {variant} program; it holds {held}"
        raise UsageError(f"{bundle} {what}; export with --formats program, or choose another --variant")
    manifest.verify(bundle, manifest.files_of(artefact))
    open_graph("native", bundle / artefact.path)  # refuses what is damaged
    data = np.frombuffer((bundle / artefact.path).read_bytes(), np.uint32)
    words = aligned(len(data))
    words[:] = data
    streams = Streams(words)
    vocabulary: Vocabulary | None = None
    if manifest.writes_text and VOCABULARY in manifest.files:
        manifest.verify(bundle, [VOCABULARY])
        vocabulary = Vocabulary.read(bundle / VOCABULARY)
    arena = streams.arena_bytes
    kind = "text" if vocabulary else "signal"
    usage = "PROMPT 100 [SEED [TEMPERATURE [TOP_K [TOP_P]]]]" if vocabulary else "< frames"
    place, own = targets.TARGETS[target]
    pragma = targets.NO_CONTRACTION if target == "arduino" else ""
    files = targets.own_files(own, kind) | {
        f"{place}/steprnn.h": (HERE / "steprnn.h").read_text(encoding="utf-8"),
        f"{place}/steprnn.c": pragma + _needed(words) + _whole(SOURCE, {"steprnn.h"}),
        f"{place}/model.h": _header(len(words), arena, vocabulary),
        f"{place}/model.c": _data(words, vocabulary),
        "README.md": README.format(
            model=manifest.model[:12],
            build=targets.BUILD[target].format(usage=usage, kind=kind),
            variant=variant,
            flash=words.nbytes,
            arena=arena,
            work=streams.work,
        ),
    }
    with new_folder(out) as folder:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    return out


def write_program(folder: Path, words: Words, arena: int) -> None:
    """The interpreter and a program with its arena's bytes, without examples, into a folder that is there."""
    (folder / "steprnn.h").write_text((HERE / "steprnn.h").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "steprnn.c").write_text(_needed(words) + _whole(SOURCE, {"steprnn.h"}), encoding="utf-8")
    (folder / "model.h").write_text(_header(len(words), arena, None), encoding="utf-8")
    (folder / "model.c").write_text(_data(words, None), encoding="utf-8")


def _needed(words: Words) -> str:
    """What of the interpreter a program needs, as layout.h asks for it."""
    kinds = functions = types = 0
    at = int(words[13])
    for _ in range(int(words[12])):
        kind, word = int(words[at]) & 255, int(words[at + 1]) & 255
        kinds |= 1 << kind
        functions |= 1 << word if kind == MAP else 0
        functions |= GATES if kind in (LSTM, GRU) else 0
        types |= 1 << word if kind == PRODUCT else 0
        at += int(words[at]) >> 8
    return (
        "/* Without the operations that the model does not need; another model's program may be refused. */\n"
        f"#define STEPRNN_KINDS {kinds:#x}u\n"
        f"#define STEPRNN_FUNCTIONS {functions:#x}u\n"
        f"#define STEPRNN_TYPES {types:#x}u\n"
    )


def _whole(name: str, seen: set[str]) -> str:
    """A source with the headers beside it in it, each once; steprnn.h is a file of its own."""

    def header(match: re.Match[str]) -> str:
        if match[1] == "steprnn.h":
            return match[0]
        if match[1] in seen:
            return ""
        seen.add(match[1])
        return _whole(match[1], seen)

    return INCLUDE.sub(header, (HERE / name).read_text(encoding="utf-8"))


def _header(words: int, arena: int, vocabulary: Vocabulary | None) -> str:
    lines = [
        "#include <stdint.h>",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "#if defined(__GNUC__)",
        "#define MODEL_ALIGNED __attribute__((aligned(8))) /* words are not, on a processor of 8 bits */",
        "#else",
        "#define MODEL_ALIGNED",
        "#endif",
        f"#define MODEL_ARENA_WORDS {-(-arena // 4)}",
        f"extern const uint32_t model_program[{words}] MODEL_ALIGNED;",
    ]
    if vocabulary:
        lines.append(f"#define MODEL_TOKENS {len(vocabulary)}")
        if vocabulary.unit == "byte":
            lines.append("#define MODEL_BYTES /* token i is byte i of UTF-8 */")
        else:
            lines.append(f"extern const char *const model_vocabulary[{len(vocabulary)}];")
    lines += ["#ifdef __cplusplus", "}", "#endif"]
    return "\n".join(lines) + "\n"


def _data(words: Words, vocabulary: Vocabulary | None) -> str:
    rows = [",".join(f"{n:#x}" for n in words[i : i + 16].tolist()) for i in range(0, len(words), 16)]
    body = ",\n".join(rows)
    text = f'#include "model.h"\nconst uint32_t model_program[{len(words)}] = {{\n{body}}};\n'
    if vocabulary and vocabulary.unit == "character":
        quoted = ('"' + "".join(f"\\{b:03o}" for b in token.encode()) + '"' for token in vocabulary.tokens)
        text += f"const char *const model_vocabulary[{len(vocabulary)}] = {{\n" + ",\n".join(quoted) + "};\n"
    return text
