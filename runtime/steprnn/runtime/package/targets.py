"""How build systems and their libraries lay out the C of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

SOURCES = Path(__file__).parent / "c_sources"
# Of each target: where the C lies, and its own files, each with the one of c_sources that it is made from.
# @KIND@ is text or signal.
TARGETS: dict[str, tuple[str, dict[str, str]]] = {
    "cmake": (
        ".",
        {
            "CMakeLists.txt": "cmake/CMakeLists.txt",
            "selftest.c": "cmake/selftest.c",
            "main.c": "cmake/@KIND@.c",
        },
    ),
    "arduino": (
        "src",
        {
            "library.properties": "arduino/library.properties",
            "examples/@KIND@/@KIND@.ino": "arduino/@KIND@.ino",
        },
    ),
    "platformio": (
        "src",
        {
            "library.json": "platformio/library.json",
            "examples/@KIND@/platformio.ini": "platformio/platformio.ini",
            "examples/@KIND@/src/main.cpp": "arduino/@KIND@.ino",
        },
    ),
    "esp-idf": (
        "src",
        {
            "idf_component.yml": "esp_idf/idf_component.yml",
            "CMakeLists.txt": "esp_idf/CMakeLists.txt",
            "examples/@KIND@/CMakeLists.txt": "esp_idf/project.cmake",
            "examples/@KIND@/main/CMakeLists.txt": "esp_idf/main.cmake",
            "examples/@KIND@/main/idf_component.yml": "esp_idf/main.yml",
            "examples/@KIND@/main/main.c": "serial/@KIND@.c",
        },
    ),
    "zephyr": (
        "src",
        {
            "zephyr/module.yml": "zephyr/module.yml",
            "zephyr/CMakeLists.txt": "zephyr/CMakeLists.txt",
            "zephyr/Kconfig": "zephyr/Kconfig",
            "samples/@KIND@/CMakeLists.txt": "zephyr/project.cmake",
            "samples/@KIND@/prj.conf": "zephyr/prj.conf",
            "samples/@KIND@/src/main.c": "serial/@KIND@.c",
        },
    ),
}
# Who uses the library of a sketch cannot give the compiler a flag.
NO_CONTRACTION = """\
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif
"""
BUILD = {
    "cmake": """\
    cmake -B build && cmake --build build && ctest --test-dir build
    build/main {usage}

or `cc -O2 -ffp-contract=off main.c model.c steprnn.c`. `selftest` tells whether every bit is as on the
machine that wrote it.""",
    "arduino": """\
Put this folder, as `steprnn_model`, into the folder `libraries` of your sketchbook; the example is under
File, Examples, steprnn_model.""",
    "platformio": """\
    pio run --project-dir examples/{kind}

or put this folder, as `steprnn_model`, into the folder `lib` of your project.""",
    "esp-idf": """\
    idf.py -C examples/{kind} build flash monitor

or put this folder, as `steprnn_model`, into the folder `components` of your project.""",
    "zephyr": """\
    west build -b nucleo_f446re samples/{kind}

or name this folder in ZEPHYR_EXTRA_MODULES of your application, with CONFIG_STEPRNN_MODEL=y.""",
}


def own_files(made_from: Mapping[str, str], kind: str) -> dict[str, str]:
    """The text of each file that TARGETS names; `kind` is text or signal."""
    files = {}
    for name, source in made_from.items():
        text = (SOURCES / source.replace("@KIND@", kind)).read_text(encoding="utf-8")
        text = text.replace("@KIND@", kind).replace("@VERSION@", version("steprnn"))
        if name.endswith(".cpp"):
            text = f"#include <Arduino.h>\n{text}"  # which a sketch is given
        files[name.replace("@KIND@", kind)] = text
    return files
