"""The flags of sampling, one for each parameter, and the parameters of the flags."""

from __future__ import annotations

import argparse
from typing import Any

from ..sampling.sampler import PARAMETERS
from ..texts.options import Options
from ._aliases import alias

SHOWN = {"temperature": "--temp"}  # as llama.cpp has it
ALSO = {
    "temperature": ("--temperature",),
    "repeat_penalty": ("--repetition-penalty", "--repetition_penalty"),
}


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """A flag for each, also by the name that it has in a request of the completions protocol."""
    for name, parameter in PARAMETERS.items():
        flag = SHOWN.get(name, f"--{name.replace('_', '-')}")
        kind = int if parameter.is_whole else float
        action = parser.add_argument(
            flag,
            dest=name,
            type=kind,
            default=parameter.default,
            metavar=parameter.letter,
            help=parameter.text,
        )
        spelled = {f"--{name}", *ALSO.get(name, ())} - {flag}
        alias(action, *sorted(spelled), of=parser)


def options_of(arguments: argparse.Namespace) -> Options:
    """What they were given."""
    found: Any = {name: getattr(arguments, name) for name in PARAMETERS}
    options: Options = found
    return options
