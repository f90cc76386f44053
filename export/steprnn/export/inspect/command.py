"""`steprnn inspect`: what a model file of any maker holds, and what is hazardous about it."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from pathlib import Path

from steprnn.runtime.quiet import quiet

HELP = "show inputs, outputs, states, operators, weights and hazards of a model file of any maker"
EXAMPLE = "  steprnn inspect their.onnx\n  steprnn inspect sensor.bundle --target cortex-m4f"
NEEDS: dict[str, str] = {}  # each kind of file needs a package of its own, asked for when it is met


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument(
        "file",
        type=Path,
        help="a .keras, .h5, .onnx or .tflite file, a SavedModel, a checkpoint or a bundle",
    )
    parser.add_argument(
        "--target",
        metavar="DEVICE",
        help="also tell what its step programs take there, such as cortex-m4f: flash, RAM, instructions",
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.add_argument("--strict", action="store_true", help="exit 1 where there is a hazard")
    parser.add_argument(
        "--trust", action="store_true", help="run the Python code that the file brings (Lambda layers)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write what was found to stdout; 1 where `--strict` meets a hazard."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of optimizer state that nobody needs here
        from . import inspect

        logging.disable(logging.WARNING)
        found = inspect(arguments.file, trust=arguments.trust)
        if arguments.target:
            from .device import on_device

            found = on_device(found, arguments.file, arguments.target)
    if arguments.json:
        sys.stdout.write(json.dumps(found.to_record(), ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.write(found.table() + "\n")
    hazardous = any(not hazard.caution for hazard in found.all_hazards())
    return 1 if arguments.strict and hazardous else 0
