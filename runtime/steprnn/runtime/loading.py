"""From a path or a name to a loaded model: which graph, in which engine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import engines
from .bundle.manifest import VARIANTS, Artefact, Manifest
from .bundle.open import read_bundle
from .bundle.packed import Place
from .bundle.vocabulary import Vocabulary
from .engines import Runner
from .engines.scaled import ScaledRunner
from .errors import BundleError, MissingExtra, UsageError, brief, wrong_type
from .files import INITIAL, VOCABULARY
from .log import logger
from .model import Model


def load(
    path: str | Path,
    *,
    engine: str = "auto",
    variant: str = "auto",
    threads: int = 1,
    states: Mapping[str, str] | None = None,
    constants: Mapping[str, ArrayLike] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    apart: bool = False,
) -> Model:
    """Load a bundle: a folder, a `.zip`, an installed model's name, or `hf://OWNER/NAME`; or a graph file.

    `engine` is "onnx", "litert", "native", or "auto": the first of LiteRT, onnxruntime and native that is
    installed and for which the bundle has a graph; native comes first where it came built and
    was measured to be the fastest. `variant` is that of the graph, such as "int8", or "auto": the first
    of float32, float16, int8-weights, int8, int16x8 and int8-fixed that the bundle has for such an engine.
    Raises `BundleError` where a file is missing, truncated, altered or too new, or a zip is not fit to be
    unpacked, and `MissingExtra` where the engine is not installed.

    `apart` loads it in another process first, where an engine may crash on a graph that was made to: a
    third of a second, for a stranger's bundle. It is for bundles; a graph file is not tried.

    A graph file needs `states`, from each state to the output it comes back as, and takes `constants`
    and `shapes` by name of an input; see `foreign.load_graph`, which they are passed to.
    """
    if not isinstance(path, str | os.PathLike):
        raise wrong_type("the path", path, "str or Path")
    for name, value in (("engine", engine), ("variant", variant)):
        if not isinstance(value, str):
            raise wrong_type(name, value, "str, such as 'auto'")
    if apart and states is None:
        from .apart import try_apart

        try_apart(path, engine, variant)
    model = _loaded(path, engine, variant, threads, states, constants, shapes)
    there = str(Path(path).absolute()) if Path(path).exists() else str(path)  # else a name or an address
    options: dict[str, Any] = {"engine": model.engine, "variant": variant, "threads": threads}
    options |= {"states": states, "constants": constants, "shapes": shapes}
    model._pickled = loaded_again, (there, options, model.manifest)
    if log := logger("steprnn.runtime"):
        log.debug("loaded %s: %s in %s, %d threads", path, model.artefact.name, model.engine, threads)
    return model


def loaded_again(path: str, options: dict[str, Any], manifest: Manifest) -> Model:
    """The model of a pickle; raises `BundleError` where another stands there now."""
    model = load(path, **options)
    if model.manifest != manifest:
        raise BundleError(f"{path} is not the bundle that was pickled; load the same one in both processes")
    return model


def _loaded(
    path: str | Path,
    engine: str,
    variant: str,
    threads: int,
    states: Mapping[str, str] | None,
    constants: Mapping[str, ArrayLike] | None,
    shapes: Mapping[str, Sequence[int]] | None,
) -> Model:
    folder = read_bundle(path, lambda manifest: _wanted(manifest, engine, variant))
    if isinstance(folder, Path) and folder.is_file() and folder.suffix.lower() in (".onnx", ".tflite"):
        from . import foreign  # a bundle needs none of it

        graph = foreign.load_graph(folder, engine, variant, threads, states, constants, shapes)
        return Model(
            manifest=graph.manifest,
            artefact=graph.artefact,
            engine=graph.engine,
            opened=graph.opened,
            vocabulary=None,
            initial_state=graph.initial_state,
        )
    if not (states is constants is shapes is None):
        raise UsageError("states, constants and shapes are for a graph file; a bundle tells its own")
    manifest = Manifest.read(folder)
    name, artefact = choose(manifest, engine, variant)
    vocabulary = None
    if VOCABULARY in manifest.files:
        manifest.verify(folder, [VOCABULARY])
        vocabulary = Vocabulary.read(folder / VOCABULARY)
        _check_size(folder / VOCABULARY, vocabulary, manifest)
    manifest.verify(folder, manifest.files_of(artefact))
    opened = engines.open_engine(name, folder / artefact.path, manifest.step, threads)
    start = None
    if manifest.start is not None:
        begins = manifest.start.graph(artefact.format)
        manifest.verify(folder, manifest.files_of(begins))
        start = engines.open_engine(name, folder / begins.path, manifest.start.spec, threads)
    model = Model(manifest, artefact, name, opened, vocabulary, manifest.initial_state(folder), start)
    try:
        with model.runner() as runner:
            runner.set_state(model.initial_state)
            runner.run()
    except Exception as error:  # each engine raises its own
        raise BundleError(
            f"{folder / artefact.path} takes no step in {name} ({brief(error)}); export again"
        ) from error
    with model.runner() as runner:
        _check_scales(runner, folder / artefact.path, manifest.scales.get(artefact.name, {}))
    return model


def _check_scales(runner: Runner, path: Place, told: Mapping[str, float]) -> None:
    """Hold the manifest's scales, by which programs in other languages bind, against the file's own."""
    for name, scale in runner.scales.items() if isinstance(runner, ScaledRunner) else ():
        if np.float32(told.get(name, 0)) != scale:
            raise BundleError(
                f"one of {name} in {path} stands for {scale:g}, and the manifest says "
                f"{told.get(name, 'nothing')}; export again"
            )


def _check_size(path: Place, vocabulary: Vocabulary, manifest: Manifest) -> None:
    tokens = manifest.step.inputs[0].tokens if manifest.step.is_language_model else None
    if tokens is not None and len(vocabulary) != tokens:
        raise BundleError(f"{path} has {len(vocabulary):,} tokens and the model {tokens:,}; export again")


def _wanted(manifest: Manifest, engine: str, variant: str) -> list[str]:
    """Names of the files that `load` reads."""
    artefact = choose(manifest, engine, variant)[1]
    graph = manifest.files_of(artefact)
    if manifest.start is not None:
        graph += manifest.files_of(manifest.start.graph(artefact.format))
    return graph + [name for name in (VOCABULARY, INITIAL) if name in manifest.files]


def _names(manifest: Manifest, engine: str, variant: str) -> list[str]:
    """The engines to try for a variant; most bundles have no program, and need not look for native."""
    if engine != "auto":
        return [engine]
    return engines.in_order() if manifest.artefact("program", variant) else list(engines.ENGINES)


def choose(manifest: Manifest, engine: str, variant: str) -> tuple[str, Artefact]:
    """The engine and the graph that `load` takes; raises as it does."""
    installed = engines.installed()
    if engine != "auto" and engine not in engines.ENGINES:
        raise UsageError(f"engine {engine!r} is unknown; expected auto, {', '.join(engines.ENGINES)}")
    variants = VARIANTS if variant == "auto" else (variant,)
    fitting = [
        (n, a)
        for v in variants
        for n in _names(manifest, engine, v)
        if (a := manifest.artefact(engines.ENGINES[n], v))
    ]
    if not fitting:
        wanted, held = " or ".join(variants), ", ".join(a.name for a in manifest.artefacts)
        way_out = "; export with --formats program" if engine == "native" else ""
        raise UsageError(f"the bundle has no {wanted} graph for engine {engine}; it holds {held}{way_out}")
    for name, artefact in fitting:
        if name in installed:
            return name, artefact
    raise MissingExtra(f"the engine {fitting[0][0]!r}", fitting[0][0])
