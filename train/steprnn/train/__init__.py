"""Train a character model in Keras and write it as a checkpoint folder; needs `steprnn[train]`.

    from steprnn.train import Settings, train

    train("checkpoint", settings=Settings(epochs=60), prompts=["分开"])

Nothing heavy is imported until a name is asked for, so that `steprnn --help` works without TensorFlow.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fit import train
    from .settings import Settings

__all__ = ["Settings", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from .fit import train

        return train
    if name == "Settings":
        from .settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
