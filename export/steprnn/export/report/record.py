"""Findings as parity.json and report.json hold them, and the conditions they were made under."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from steprnn.runtime.files import PARITY_FORMAT
from steprnn.runtime.parity.findings import Finding, Verdict, overall


def record(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as JSON; docs/parity-report.schema.json is its schema."""
    return {
        **PARITY_FORMAT.head(),
        "passed": overall(findings) is not Verdict.FAILED,
        "verdict": str(overall(findings)),
        "conditions": conditions(),
        "findings": [
            {
                "level": str(f.level),
                "case": f.case,
                "candidate": str(f.candidate),
                "passed": f.passed,
                "void": f.void,
                "summary": f.summary,
                "failure": f.failure,
                "seconds": round(f.seconds, 3),
                "figures": _finite(f.figures),
            }
            for f in findings
        ],
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN; null stands for what is not finite."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def conditions() -> dict[str, Any]:
    """Where and with what artefacts were made and judged."""
    packages = ("steprnn", "tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu_flags": _cpu_flags(),
        "threads": 1,
        "onnxruntime_optimization": "ORT_ENABLE_ALL",
    }


def _cpu_flags() -> list[str]:
    """What the processor has that changes how an engine computes (Linux)."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    flags = next(
        (line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), []
    )
    told = ("avx", "fma", "f16c", "sse4", "amx", "asimd", "sve", "i8mm", "bf16")
    return sorted(flag for flag in flags if flag.startswith(told))
