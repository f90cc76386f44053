"""Builds the interpreter of step programs into the wheel, where there is a C compiler.

`pip wheel .` compiles for this machine, and gives a pure wheel where nothing does: the engine native then
compiles it once for its user. With STEPRNN_WHEEL, one of `TARGETS`, it is cross-compiled for that platform:

    STEPRNN_WHEEL=manylinux_2_17_aarch64 pip wheel --no-deps .

With STEPRNN_WHEEL=any it is pure, whatever is there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "steprnn/runtime/engines/native"
FLAGS = ("-std=c99", "-O3", "-ffp-contract=off", "-shared", "-fPIC")  # as the engine itself compiles
PURE = "any"
TARGETS = {  # platform of the wheel -> zig's name for it
    "manylinux_2_17_x86_64": "x86_64-linux-gnu.2.17",
    "manylinux_2_17_aarch64": "aarch64-linux-gnu.2.17",
    "manylinux_2_31_armv7l": "arm-linux-gnueabihf.2.31",
    "musllinux_1_2_x86_64": "x86_64-linux-musl",
    "musllinux_1_2_aarch64": "aarch64-linux-musl",
    "macosx_13_0_arm64": "aarch64-macos.13.0",
    "macosx_13_0_x86_64": "x86_64-macos.13.0",
    "win_amd64": "x86_64-windows-gnu",
    "win_arm64": "aarch64-windows-gnu",
}


class NativeLibrary(BuildHookInterface[Any]):
    """Adds the library, and the wheel's platform."""

    def dependencies(self) -> list[str]:
        """What compiles for other platforms."""
        return ["ziglang>=0.13"] if _wanted() in TARGETS else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile it; an editable install has the sources."""
        wanted = _wanted()
        if version == "editable" or wanted == PURE:
            return
        platform = wanted or sysconfig.get_platform().replace("-", "_").replace(".", "_")
        self._made = tempfile.mkdtemp(prefix="steprnn-native-")  # beside the wheels it would be published
        library = Path(self._made) / f"libsteprnn{_suffix(platform)}"
        source = Path(self.root) / "runtime" / FOLDER / "steprnn.c"
        command = _compiler(wanted)
        done = None
        if command is not None:
            line = [*command, *FLAGS, "-s", "-o", str(library), str(source)]
            done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done is None or done.returncode:
            told = "there is no C compiler" if done is None else done.stderr.strip()
            if wanted:
                raise RuntimeError(f"the engine native is not compiled for {wanted}: {told}")
            self.app.display_warning(f"a pure wheel, without the engine native compiled: {told}")
            return
        build_data["force_include"][str(library)] = f"{FOLDER}/{library.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled, which is in the wheel now."""
        shutil.rmtree(getattr(self, "_made", ""), ignore_errors=True)


def _wanted() -> str:
    wanted = os.environ.get("STEPRNN_WHEEL", "")
    if wanted and wanted not in (PURE, *TARGETS):
        raise ValueError(f"STEPRNN_WHEEL is {wanted!r}; expected one of: {', '.join((PURE, *TARGETS))}")
    return wanted


def _compiler(wanted: str) -> list[str] | None:
    if wanted:
        return [sys.executable, "-m", "ziglang", "cc", "-target", TARGETS[wanted]]
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and shutil.which(name.split()[0]):
            return name.split()
    return None


def _suffix(platform: str) -> str:
    return {"win": ".dll", "mac": ".dylib"}.get(platform[:3], ".so")
