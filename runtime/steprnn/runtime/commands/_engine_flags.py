"""The flags that choose an engine and its weights, and the model that they choose."""

from __future__ import annotations

import argparse

from ..bundle.manifest import VARIANTS
from ..engines import ENGINES
from ..loading import load
from ..model import Model
from ..quiet import quiet
from ._aliases import alias


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """The flags, to a parser or a group of one."""
    parser.add_argument("--engine", choices=("auto", *ENGINES), default="auto", help="what runs the step")
    parser.add_argument(
        "--variant",
        choices=("auto", *VARIANTS),
        default="auto",
        help="which weights; auto is the most exact in the bundle",
    )
    threads = parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads within a step")
    alias(threads, "-t", of=parser)


def load_model(arguments: argparse.Namespace) -> Model:
    """The bundle that is given, in the engine that is chosen; raises as `load` does."""
    with quiet():
        return load(
            arguments.bundle,
            engine=arguments.engine,
            variant=arguments.variant,
            threads=arguments.threads,
        )
