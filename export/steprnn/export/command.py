"""`steprnn export`: a checkpoint to a bundle."""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from pathlib import Path

from steprnn.runtime.claims import temporary_files
from steprnn.runtime.heavy import heavy_imports
from steprnn.runtime.quiet import quiet

from .paths import refuse_strangers
from .stages import stages
from .text import read_text

HELP = "write the step graphs of a trained model, each checked against TensorFlow"
EXAMPLE = "  steprnn export lyrics.checkpoint --out lyrics.bundle"
NEEDS = {
    "tensorflow": "export",
    "tf2onnx": "export",
    "onnx": "export",
    "onnxruntime": "export",
    "ai_edge_litert": "export",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument(
        "checkpoint", type=Path, help="folder that `steprnn train` wrote, a .keras or an .h5 file"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    parser.add_argument(
        "--formats",
        type=lambda value: value.split(","),
        default="saved_model,tflite,onnx",
        help="which formats, with commas between; program, which the engine native runs, is another",
    )
    parser.add_argument(
        "--quantize",
        type=lambda value: value.split(","),
        help="none (float32), float16, int8, for a page int8-weights, for a device int16x8 or int8-fixed, "
        "with commas between; what a format lacks is left out (default: none, and int8 where it passes)",
    )
    parser.add_argument(
        "--text", type=Path, help="UTF-8 text to check on (default: one that the model writes itself)"
    )
    parser.add_argument(
        "--inputs",
        type=Path,
        metavar="NPZ",
        help="inputs to check on, by their names: arrays [steps, rows, ...], such as recorded signals",
    )
    parser.add_argument(
        "--trust", action="store_true", help="run the Python code that the file brings (Lambda layers)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Export, and tell each stage on stderr."""
    refuse_strangers(arguments.checkpoint)
    text = read_text(arguments.text) if arguments.text else None
    named = arguments.quantize
    variants = None if named is None else ["float32" if name == "none" else name for name in named]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with temporary_files(), quiet() as terminal, stages(terminal) as say, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras and the converters warn of what the checks look at
        say("starting TensorFlow")
        with heavy_imports():
            from .bundle import export

        logging.disable(logging.WARNING)
        manifest = export(
            arguments.checkpoint,
            arguments.out,
            formats=arguments.formats,
            variants=variants,
            text=text,
            inputs=arguments.inputs,
            trust=arguments.trust,
            say=say,
        )
        say(f"wrote {arguments.out}: {', '.join(a.name for a in manifest.artefacts)}")
    return 0
