"""What each kind of layer means to a single step: run as it is, remembered, or refused with a reason.

docs/supported-layers.md is this table for people, and a test holds the two together.
"""

from __future__ import annotations

from typing import Any

from keras import layers

from steprnn.runtime.errors import ExportError

# They act on each element or on the last axis alone, so they give the same without a time axis, and
# then leave no reshapes in the graph. Every other layer runs on a time axis of length 1.
TIMELESS = frozenset(
    {
        *("Dense", "Embedding", "OneHot", "Activation", "ReLU", "LeakyReLU", "ELU", "Identity"),
        *("Dropout", "GaussianNoise", "GaussianDropout", "AlphaDropout"),
        *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
        *("Divide", "Relu", "Sigmoid", "Tanh", "Cast", "Negative", "Square", "Sqrt", "Exp", "Absolute"),
    }
)

# class -> (what it does that a step cannot, what to do instead); where its input has a time axis.
REFUSED = {
    "Bidirectional": ("reads the sequence from both ends", "train with the forward layer alone"),
    "Attention": ("looks at other time steps", "use a recurrent layer or a causal Conv1D"),
    "AdditiveAttention": ("looks at other time steps", "use a recurrent layer or a causal Conv1D"),
    "MultiHeadAttention": ("looks at other time steps", "use a recurrent layer or a causal Conv1D"),
    "GroupedQueryAttention": ("looks at other time steps", "use a recurrent layer or a causal Conv1D"),
    "AveragePooling1D": ("pools over time", "leave it out, or pool in the caller"),
    "MaxPooling1D": ("pools over time", "leave it out, or pool in the caller"),
    "GlobalAveragePooling1D": ("pools over time", "use return_sequences=False, or pool in the caller"),
    "GlobalMaxPooling1D": ("pools over time", "use return_sequences=False, or pool in the caller"),
    "AdaptiveAveragePooling1D": ("pools over time", "leave it out, or pool in the caller"),
    "AdaptiveMaxPooling1D": ("pools over time", "leave it out, or pool in the caller"),
    "Flatten": (
        "flattens time into the features",
        "use TimeDistributed(Flatten()), or return_sequences=False",
    ),
    "Permute": ("moves the time axis", "keep time at axis 1"),
    "Dot": ("multiplies across time steps", "use Multiply"),
    "UpSampling1D": ("makes more time steps than it reads", "repeat in the caller"),
    "Cropping1D": ("drops time steps", "crop in the caller"),
    "Conv1DTranspose": ("makes more time steps than it reads", "use a causal Conv1D"),
    "GlobalAveragePooling2D": ("pools over time", "use return_sequences=False, or pool in the caller"),
    "GlobalMaxPooling2D": ("pools over time", "use return_sequences=False, or pool in the caller"),
    "Conv3D": ("mixes time steps", "wrap it in TimeDistributed"),
    "ConvLSTM1D": ("keeps an image as its state", "write it as an RNN of a cell with flat states"),
    "ConvLSTM2D": ("keeps an image as its state", "write it as an RNN of a cell with flat states"),
    "ConvLSTM3D": ("keeps an image as its state", "write it as an RNN of a cell with flat states"),
    "GroupNormalization": ("normalises over time", "use LayerNormalization over the features"),
}
PAD = "use ZeroPadding1D((dilation * (kernel - 1), 0)) before it with padding='valid'"
PAD_2D = "use ZeroPadding2D(((dilation * (kernel - 1), 0), (left, right))) before it with padding='valid'"
REFUSED_WITHOUT_TIME = {
    "RepeatVector": ("makes a sequence from one vector", "export the part after it as a model of its own"),
}


def refuse(op: Any, timed: bool, static: bool = False, cropped: bool = False, asks: bool = False) -> None:
    """Raise `ExportError` where this layer, on an input with (or without) a time axis, has no step.

    `static` tells that the input is the same over the sequence, so that it may be repeated along it;
    `cropped` that the layer takes away what lies beyond the sequence, and nothing else; `asks` that the first
    of several inputs alone is a sequence, whose steps an attention has to do with one at a time.
    """
    kind = next((c.__name__ for c in type(op).__mro__ if c.__name__ in REFUSED), type(op).__name__)
    asks = asks and kind.endswith("Attention")
    if timed and kind in REFUSED and not asks:
        raise refusal(op, *REFUSED[kind])
    if not timed and not static and kind in REFUSED_WITHOUT_TIME:
        raise refusal(op, *REFUSED_WITHOUT_TIME[kind])
    if timed and kind == "Concatenate" and op.axis == 1:
        raise refusal(op, "joins sequences one after the other", "step through the first, then the second")
    if isinstance(op, layers.RNN) and op.go_backwards:
        raise refusal(op, "reads the sequence backwards (go_backwards=True)", "train it forwards")
    if timed and isinstance(op, layers.BatchNormalization | layers.LayerNormalization):
        axes = op.axis if isinstance(op.axis, list | tuple) else [op.axis]
        if 1 in axes:
            raise refusal(op, "normalises over time (axis 1)", "normalise over the features, axis=-1")
    if timed and isinstance(op, layers.CategoryEncoding) and op.output_mode != "one_hot":
        raise refusal(op, "counts the tokens of all time steps", "use output_mode='one_hot'")
    if timed and isinstance(op, CONVOLUTIONS):
        _refuse_convolution(op)
    if timed and isinstance(op, layers.MaxPooling2D | layers.AveragePooling2D):
        _refuse_blocks(op, "pools", op.pool_size, op.strides)
    if timed and isinstance(op, layers.UpSampling2D) and op.size[0] > 1:
        raise refusal(op, "makes more time steps than it reads", "repeat in the caller, or size=(1, ...)")
    if timed and isinstance(op, layers.Cropping2D) and any(op.cropping[0]) and not cropped:
        raise refusal(op, "drops time steps", "crop in the caller")


CONVOLUTIONS = (
    *(layers.Conv1D, layers.DepthwiseConv1D, layers.SeparableConv1D),
    *(layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Conv2DTranspose),
)


def _refuse_convolution(op: Any) -> None:
    """Time is the first axis that a convolution slides over."""
    if op.data_format != "channels_last":
        raise refusal(op, "has the time axis last (channels_first)", "use channels_last")
    _refuse_blocks(op, "strides", (1,), op.strides)
    reach = (op.kernel_size[0] - 1) * op.dilation_rate[0]
    if reach and isinstance(op, layers.SeparableConv1D | layers.SeparableConv2D):
        kind = "2D" if isinstance(op, layers.SeparableConv2D) else "1D"
        instead = f"{instead_of_padding(op)}, a DepthwiseConv{kind} and a Conv{kind} of size 1"
        raise refusal(op, "has no causal form in Keras", instead)
    if reach and op.padding == "same":
        raise refusal(op, "sees the future (padding='same')", instead_of_padding(op))


def slides_over_one(op: Any) -> bool:
    """Whether a convolution looks at one time step at once, in blocks all the same: its kernel is dilated.

    TensorFlow cuts the sequence into as many as the dilation, which looks like mixing them.
    """
    return isinstance(op, CONVOLUTIONS) and op.kernel_size[0] == 1 and op.dilation_rate[0] > 1


def _refuse_blocks(op: Any, does: str, sizes: Any, strides: Any) -> None:
    """What makes one time step of several would be causal in blocks of as many."""
    strides = strides or sizes
    block = max(int(sizes[0]), int(strides[0]))
    if block > 1:
        alone = "strides=1" if len(strides) == 1 else "(1, ...)"
        blocks = f"let one step of the model be a block of {block} time steps"
        raise refusal(op, f"{does} over time (by {block})", f"use {alone}, or {blocks}")


def instead_of_padding(op: Any) -> str:
    """How to make a convolution causal: Keras offers `causal` for Conv1D alone."""
    if isinstance(op, layers.Conv2DTranspose):
        return (
            "use padding='valid', and crop the last kernel - 1 time steps: Cropping2D(((0, k - 1), (0, 0)))"
        )
    if isinstance(op, layers.Conv1D) and not isinstance(op, layers.SeparableConv1D):
        return "use padding='causal'"
    return PAD_2D if len(op.kernel_size) == 2 else PAD


def changes_a_variable(op: Any) -> ExportError:
    """Of a layer that writes a variable whenever it is called."""
    instead = "draw outside the model, and give it what was drawn as an Input"
    return refusal(op, "changes a variable at every call, as drawing at random does", instead)


def refusal(op: Any, reason: str, instead: str) -> ExportError:
    """The error that names a layer, the reason and the way out."""
    return ExportError(f"layer {op.name!r} ({type(op).__name__}) {reason}, so it has no step; {instead}")
