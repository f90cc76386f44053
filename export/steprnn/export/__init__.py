"""Turn a Keras model into a verified single-step bundle; needs `steprnn[export]`.

>>> from steprnn.export import export
>>> export(model, "model.bundle")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steprnn.runtime.spec import StepSpec, TensorSpec

if TYPE_CHECKING:
    from .bundle import export
    from .step.contract import Step
    from .testing import assert_parity

__all__ = ["Step", "StepSpec", "TensorSpec", "assert_parity", "export"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # a checker would take every misspelt name for one that this gives

    def __getattr__(name: str) -> Any:
        """Import TensorFlow when something is used, not when the command line looks for its commands."""
        if name == "export":
            from .bundle import export

            return export
        if name == "Step":
            from .step.contract import Step

            return Step
        if name == "assert_parity":
            from .testing import assert_parity

            return assert_parity
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
