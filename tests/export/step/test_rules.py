"""The rule of each operator: what it tells holds what a change of one time step moves, and not much more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from keras import ops
from tensorflow.python.framework import op_def_registry

from steprnn.export.step.locality import STEPS, Trace
from steprnn.export.step.rules import ELEMENTWISE, RULES, SOURCES

ROWS, FEATURES = 2, 4
Function = Callable[[Any], Any]


def traced(function: Function, dtype: Any = tf.float32, features: tuple[int, ...] = (FEATURES,)) -> Trace:
    """The trace of a function of `[batch, time, ...]`."""
    spec = tf.TensorSpec([None, None, *features], dtype)
    return Trace(tf.compat.v1.wrap_function(lambda x: tf.identity(function(tf.identity(x))), [spec]), [spec])


def drawn(dtype: Any, features: tuple[int, ...], seed: int, steps: int = STEPS) -> Any:
    numbers = np.random.default_rng(seed).uniform(0.05, 0.95, (ROWS, steps, *features))
    return (
        tf.cast(numbers > 0.5, dtype)
        if dtype == tf.bool
        else tf.cast(numbers * 7 if dtype.is_integer else numbers, dtype)
    )


def moved(function: Function, dtype: Any, features: tuple[int, ...]) -> Any:
    """Brute force: for each output element the bits of the time steps whose change moves it."""
    x = drawn(dtype, features, 0)
    before = np.asarray(function(x))
    bits = np.zeros(before.shape, np.int64)
    for t in range(STEPS):
        for seed in range(1, 5):
            here = np.arange(STEPS).reshape((1, STEPS) + (1,) * len(features)) == t
            after = np.asarray(function(tf.where(here, drawn(dtype, features, seed), x)))
            same = (before == after) | ((before != before) & (after != after))  # or both are no number
            bits |= np.where(same, 0, 1 << t)
    return bits


def fault(trace: Trace) -> str:
    """What is wrong with the first result, a sequence."""
    return trace.fault(trace.results[0], True)[0]


def told(trace: Trace) -> Any:
    return trace.seen[trace.results[0]].bits


def operators(trace: Trace) -> set[str]:
    return {op.type for op in trace.operators}


def x_and(operation: Function) -> Function:
    """What an operation makes of numbers without bits, added to the input."""
    return lambda x: x + tf.cast(operation(x), x.dtype)


def table() -> Any:
    return tf.constant(np.arange(400.0).reshape(100, 4), tf.float32)


def steps_of(x: Any) -> Any:
    return tf.shape(x)[1]


LOCAL, OTHER, INDEX, LENGTH = "", "reads other time steps", "depends on the index", "depends on the length"
# operator, features of x, function, what is found
CASES: list[tuple[str, tuple[int, ...], Function, str]] = [
    ("Reshape", (4,), lambda x: tf.reshape(x, [-1, steps_of(x), 2, 2]), LOCAL),
    ("Reshape", (4,), lambda x: tf.reshape(tf.transpose(x, [0, 2, 1]), tf.shape(x)), OTHER),
    ("Squeeze", (1,), lambda x: tf.squeeze(x, -1), LOCAL),
    ("ExpandDims", (4,), lambda x: tf.expand_dims(x, 2), LOCAL),
    ("Transpose", (2, 3), lambda x: tf.transpose(x, [0, 1, 3, 2]), LOCAL),
    ("BroadcastTo", (1,), lambda x: tf.broadcast_to(x, [2, steps_of(x), 3]), LOCAL),
    ("Tile", (4,), lambda x: tf.tile(x, [1, 1, 2]), LOCAL),
    ("Tile", (4,), lambda x: x + tf.tile(tf.constant([[[1.0]]]), [1, steps_of(x), 1]), LOCAL),
    ("Tile", (4,), lambda x: tf.tile(x, [1, 2, 1])[:, 1 : 1 + steps_of(x)], OTHER),
    ("Pad", (4,), lambda x: tf.pad(x, [[0, 0], [0, 0], [1, 0]]), LOCAL),
    ("Pad", (4,), lambda x: tf.pad(x, [[0, 0], [1, 0], [0, 0]])[:, :-1], OTHER),
    ("Pad", (4,), lambda x: tf.pad(x, [[0, 0], [84, 0], [0, 0]])[:, :-84], INDEX),
    ("PadV2", (4,), lambda x: tf.pad(x, [[0, 0], [0, 0], [1, 0]], constant_values=2.0), LOCAL),
    ("PadV2", (4,), lambda x: tf.pad(x, [[0, 0], [84, 0], [0, 0]], constant_values=2.0)[:, :-84], INDEX),
    ("MirrorPad", (4,), lambda x: tf.pad(x, [[0, 0], [0, 0], [1, 0]], "REFLECT"), LOCAL),
    ("MirrorPad", (4,), lambda x: tf.pad(x, [[0, 0], [1, 0], [0, 0]], "SYMMETRIC")[:, :-1], OTHER),
    ("ReverseV2", (4,), lambda x: tf.reverse(x, [2]), LOCAL),
    ("ReverseV2", (4,), lambda x: tf.reverse(x, [1]), OTHER),
    ("Roll", (4,), lambda x: tf.roll(x, 1, 2), LOCAL),
    ("Roll", (4,), lambda x: tf.roll(x, 1, 1), OTHER),
    ("Roll", (4,), lambda x: tf.roll(x, 9 * 11, 1), INDEX),
    ("StridedSlice", (4,), lambda x: x[..., ::2], LOCAL),
    ("StridedSlice", (4,), lambda x: x[:, : steps_of(x), 1], LOCAL),
    ("StridedSlice", (4,), lambda x: x - x[:, :1], OTHER),
    ("StridedSlice", (4,), lambda x: x[:, ::-1], OTHER),
    ("StridedSlice", (4,), lambda x: x - x[:, -1:], OTHER),
    ("StridedSlice", (4,), lambda x: x[:, :84], INDEX),
    ("StridedSlice", (4,), lambda x: x + table()[: steps_of(x)], INDEX),
    ("Slice", (4,), lambda x: tf.slice(x, [0, 0, 1], [-1, -1, 2]), LOCAL),
    ("Slice", (4,), lambda x: tf.slice(x, [0, 0, 0], [-1, steps_of(x), 2]), LOCAL),
    ("Slice", (4,), lambda x: x - tf.slice(x, [0, 3, 0], [-1, 1, -1]), OTHER),
    ("Slice", (4,), lambda x: x + tf.slice(table(), [0, 0], [steps_of(x), 4]), INDEX),
    ("ConcatV2", (4,), lambda x: tf.concat([x, 2 * x], -1), LOCAL),
    ("ConcatV2", (4,), lambda x: tf.concat([tf.zeros_like(x[:, :1]), x[:, :-1]], 1), OTHER),
    ("ConcatV2", (4,), lambda x: tf.concat([x[:, :84], 0 * x[:, 84:]], 1), INDEX),
    ("Pack", (4,), lambda x: tf.stack([x, x], 2), LOCAL),
    ("Unpack", (4,), lambda x: tf.add_n(tf.unstack(x, axis=2)), LOCAL),
    ("Split", (4,), lambda x: tf.split(x, 2, -1)[1], LOCAL),
    ("SplitV", (4,), lambda x: tf.split(x, [1, 3], -1)[1], LOCAL),
    ("SplitV", (4,), lambda x: x + tf.split(x, [1, -1], 1)[0], OTHER),
    ("GatherV2", (4,), lambda x: tf.gather(x, [2, 0], axis=2), LOCAL),
    ("GatherV2", (4,), lambda x: tf.gather(table(), tf.cast(x * 9, tf.int32)), LOCAL),
    ("GatherV2", (4,), lambda x: tf.gather(x, tf.cast(x * 3, tf.int32), axis=2, batch_dims=2), LOCAL),
    ("GatherV2", (4,), lambda x: x - tf.gather(x, [3], axis=1), OTHER),
    ("GatherV2", (4,), lambda x: tf.gather(x, tf.cast(x[..., 0] * 9, tf.int32), axis=1, batch_dims=1), OTHER),
    ("GatherV2", (4,), lambda x: x + tf.gather(table(), tf.range(steps_of(x)) // 64), INDEX),
    ("GatherV2", (4,), lambda x: tf.gather(x, tf.maximum(tf.range(steps_of(x)) - 84, 0), axis=1), OTHER),
    ("OneHot", (4,), lambda x: tf.one_hot(tf.cast(x * 9, tf.int32), 5), LOCAL),
    ("SpaceToBatchND", (4, 1), lambda x: tf.space_to_batch(x, [1, 2], [[0, 0], [0, 0]])[:2], LOCAL),
    (
        "SpaceToBatchND",
        (4, 1),
        lambda x: tf.batch_to_space(tf.space_to_batch(x, [1, 2], [[0, 0]] * 2), [1, 2], [[0, 0]] * 2),
        LOCAL,
    ),
    (
        "BatchToSpaceND",
        (4, 1),
        lambda x: tf.batch_to_space(tf.concat([x, x], 0), [1, 2], [[0, 0]] * 2),
        LOCAL,
    ),
    ("Sum", (4,), lambda x: tf.reduce_sum(x, -1, keepdims=True), LOCAL),
    ("Sum", (4,), lambda x: x - tf.reduce_sum(x, 1, keepdims=True), OTHER),
    ("Sum", (4,), lambda x: x - tf.reduce_sum(tf.ones_like(x), 1, keepdims=True), LENGTH),
    ("Mean", (4,), lambda x: x - tf.reduce_mean(x, 1, keepdims=True), OTHER),
    ("Max", (4,), lambda x: x - tf.reduce_max(x, 1, keepdims=True), OTHER),
    ("Min", (4,), lambda x: x - tf.reduce_min(x, 1, keepdims=True), OTHER),
    ("Prod", (4,), lambda x: x - tf.reduce_prod(x, 1, keepdims=True), OTHER),
    ("EuclideanNorm", (4,), lambda x: x - tf.math.reduce_euclidean_norm(x, 1, keepdims=True), OTHER),
    ("All", (4,), x_and(lambda x: tf.reduce_all(x > 0.1, 1, keepdims=True)), OTHER),
    ("Any", (4,), x_and(lambda x: tf.reduce_any(x > 0.9, 1, keepdims=True)), OTHER),
    ("ArgMax", (4,), x_and(lambda x: tf.argmax(x, 1)[:, None]), OTHER),
    ("ArgMin", (4,), x_and(lambda x: tf.argmin(x, 1)[:, None]), OTHER),
    ("ArgMin", (4,), x_and(lambda x: tf.argmin(x, -1)[..., None]), LOCAL),
    ("Softmax", (4,), tf.nn.softmax, LOCAL),
    ("Softmax", (4,), lambda x: tf.nn.softmax(x, 1), OTHER),
    ("LogSoftmax", (4,), tf.nn.log_softmax, LOCAL),
    ("TopKV2", (4,), lambda x: tf.sort(x, -1), LOCAL),
    (
        "TopKV2",
        (4,),
        lambda x: tf.transpose(tf.math.top_k(tf.transpose(x, [0, 2, 1]), steps_of(x))[0], [0, 2, 1]),
        OTHER,
    ),
    ("FFT", (4,), lambda x: tf.math.real(tf.signal.fft(tf.cast(x, tf.complex64))), LOCAL),
    ("IFFT", (4,), lambda x: tf.math.imag(tf.signal.ifft(tf.complex(x, x[..., ::-1]))), LOCAL),
    ("RFFT", (4,), lambda x: tf.abs(tf.signal.rfft(x)), LOCAL),
    ("IRFFT", (4,), lambda x: tf.signal.irfft(tf.complex(x, x)), LOCAL),
    ("Cumsum", (4,), lambda x: tf.cumsum(x, 2), LOCAL),
    ("Cumsum", (4,), lambda x: tf.cumsum(x, 1), OTHER),
    ("Cumsum", (4,), lambda x: tf.cumsum(x, 1, reverse=True, exclusive=True), OTHER),
    ("Cumsum", (4,), lambda x: tf.where(tf.cumsum(tf.ones_like(x), 1) > 100, 0.0, x), INDEX),
    ("Cumprod", (4,), lambda x: tf.math.cumprod(x, 1), OTHER),
    ("CumulativeLogsumexp", (4,), lambda x: tf.math.cumulative_logsumexp(x, 1), OTHER),
    ("MatrixBandPart", (3, 3), lambda x: tf.linalg.band_part(x, 1, 0), LOCAL),
    ("MatrixBandPart", (4,), lambda x: tf.linalg.band_part(x, 1, 0), INDEX),
    (
        "MatMul",
        (4,),
        lambda x: tf.reshape(tf.reshape(x, [-1, 4]) @ tf.ones([4, 3]), [-1, steps_of(x), 3]),
        LOCAL,
    ),
    ("BatchMatMulV2", (2, 3), lambda x: tf.matmul(x, x, transpose_b=True), LOCAL),
    ("BatchMatMulV2", (2, 3), lambda x: tf.matmul(x, x, transpose_a=True), LOCAL),
    ("BatchMatMulV2", (4,), lambda x: tf.matmul(tf.matmul(x, x, transpose_b=True), tf.ones_like(x)), OTHER),
    (
        "BatchMatMulV3",
        (2, 3),
        lambda x: tf.raw_ops.BatchMatMulV3(x=x, y=x, Tout=tf.float32, adj_y=True),
        LOCAL,
    ),
    ("BatchMatMul", (2, 3), lambda x: tf.raw_ops.BatchMatMul(x=x, y=x, adj_x=True), LOCAL),
    ("Einsum", (4,), lambda x: tf.einsum("btf,fg->btg", x, tf.ones([4, 3])), LOCAL),
    ("Einsum", (4,), lambda x: tf.einsum("...f,gf->...g", x, tf.ones([3, 4])), LOCAL),
    ("Einsum", (4,), lambda x: tf.einsum("btf,btg->btgf", x, x), LOCAL),
    ("Einsum", (4,), lambda x: tf.einsum("bsf,btf->btf", x, tf.ones_like(x)), OTHER),
    ("Einsum", (4,), lambda x: x + tf.einsum("bsf,btf->btf", tf.ones_like(x), tf.ones_like(x)), LENGTH),
    ("Einsum", (2, 2), lambda x: tf.einsum("btii->bti", x), OTHER),  # a diagonal, of which nothing is known
    ("Conv2D", (4, 1), lambda x: tf.nn.conv2d(x, tf.ones([1, 3, 1, 2]), 1, "SAME"), LOCAL),
    ("Conv2D", (4, 1), lambda x: tf.nn.conv2d(x, tf.ones([1, 2, 1, 2]), [1, 2], "VALID"), LOCAL),
    ("Conv2D", (4, 1), lambda x: tf.nn.conv2d(x, tf.ones([3, 1, 1, 2]), 1, "SAME"), OTHER),
    ("Conv2D", (4,), lambda x: tf.nn.conv1d(x, tf.ones([2, 4, 3]), 1, "SAME", dilations=4), OTHER),
    ("Conv2D", (4,), lambda x: tf.nn.conv1d(x, tf.ones([3, 4, 3]), 1, "SAME", dilations=84), INDEX),
    (
        "DepthwiseConv2dNative",
        (4, 2),
        lambda x: tf.nn.depthwise_conv2d(x, tf.ones([1, 2, 2, 1]), [1] * 4, "SAME"),
        LOCAL,
    ),
    (
        "DepthwiseConv2dNative",
        (4, 2),
        lambda x: tf.nn.depthwise_conv2d(x, tf.ones([2, 1, 2, 1]), [1] * 4, "SAME"),
        OTHER,
    ),
    (
        "Conv2DBackpropInput",
        (4, 1),
        lambda x: tf.nn.conv2d_transpose(x, tf.ones([1, 3, 2, 1]), [2, steps_of(x), 8, 2], [1, 2]),
        LOCAL,
    ),
    (
        "Conv2DBackpropInput",
        (4, 1),
        lambda x: tf.nn.conv2d_transpose(x, tf.ones([2, 1, 2, 1]), [2, steps_of(x), 4, 2], 1),
        OTHER,
    ),
    ("MaxPool", (4, 1), lambda x: tf.nn.max_pool2d(x, [1, 2], [1, 2], "VALID"), LOCAL),
    ("MaxPool", (4, 1), lambda x: tf.nn.max_pool2d(x, [2, 1], 1, "SAME"), OTHER),
    ("AvgPool", (4, 1), lambda x: tf.nn.avg_pool2d(x, [1, 2], 1, "SAME"), LOCAL),
    ("AvgPool", (4, 1), lambda x: tf.nn.avg_pool2d(x, [3, 1], 1, "SAME"), OTHER),
    (
        "Range",
        (4,),
        lambda x: x + tf.maximum(tf.range(steps_of(x), dtype=tf.float32) - 100, 0)[:, None],
        INDEX,
    ),
    ("Range", (4,), lambda x: x + tf.range(4, dtype=tf.float32), LOCAL),
    (
        "LinSpace",
        (4,),
        lambda x: x + tf.raw_ops.LinSpace(start=0.0, stop=1.0, num=steps_of(x))[:, None],
        INDEX,
    ),
    ("Shape", (4,), lambda x: x / tf.cast(steps_of(x), tf.float32), LENGTH),
    ("Shape", (4,), lambda x: x / tf.cast(tf.shape(x)[2], tf.float32), LOCAL),
    ("ShapeN", (4,), lambda x: x / tf.cast(tf.raw_ops.ShapeN(input=[x, x])[0][1], tf.float32), LENGTH),
    ("Size", (4,), lambda x: x / tf.cast(tf.size(x), tf.float32), LENGTH),
    ("Fill", (4,), lambda x: x + tf.fill([2, steps_of(x), 4], 2.0), LOCAL),
    ("Fill", (4,), lambda x: x + tf.fill([2, 1, 4], tf.reduce_mean(x)), OTHER),
    ("IdentityN", (4,), lambda x: tf.identity_n([x, x[:, ::-1]])[0], LOCAL),
    ("Select", (4,), lambda x: tf.raw_ops.Select(condition=x > 0.5, x=x, y=2 * x), LOCAL),
    (
        "Select",
        (4,),
        lambda x: tf.reshape(
            tf.raw_ops.Select(
                condition=tf.reshape(x, [-1, 4])[:, 0] > 0.5,
                x=tf.reshape(x, [-1, 4]),
                y=tf.reshape(2 * x, [-1, 4]),
            ),
            tf.shape(x),
        ),
        LOCAL,
    ),
    ("ResourceGather", (4,), lambda x: VARIABLE.sparse_read(tf.cast(x * 9, tf.int32)), LOCAL),
    ("ReadVariableOp", (4,), lambda x: x + VARIABLE[0], LOCAL),
]
VARIABLE = tf.Variable(np.arange(40.0).reshape(10, 4), dtype=tf.float32)


@pytest.mark.parametrize(
    ("operator", "features", "function", "found"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_an_operator(operator: str, features: tuple[int, ...], function: Function, found: str) -> None:
    trace = traced(function, features=features)
    assert operator in operators(trace)
    assert fault(trace).startswith(found)
    assert bool(fault(trace)) == bool(found)
    assert not np.any(moved(function, tf.float32, features) & ~told(trace))


def test_every_operator_with_a_rule_is_tried() -> None:
    assert {*RULES} - {*ELEMENTWISE} - {*SOURCES} == {operator for operator, *_ in CASES} - {*SOURCES}


RAW = tf.raw_ops
SPECIAL: dict[str, Function] = {
    "AddN": lambda x: tf.add_n([x, 2 * x]),
    "Betainc": lambda x: tf.math.betainc(x, 2 * x, 0.5 * x),
    "BiasAdd": lambda x: tf.nn.bias_add(x, tf.ones([4])),
    "Bitcast": lambda x: tf.bitcast(x, tf.int32),
    "BroadcastArgs": lambda x: x * tf.ones(RAW.BroadcastArgs(s0=tf.shape(x), s1=[1, 1, 4])),
    "Bucketize": lambda x: RAW.Bucketize(input=x, boundaries=[0.3, 0.5]),
    "Cast": lambda x: tf.cast(x, tf.int32),
    "CheckNumerics": lambda x: tf.debugging.check_numerics(x, "x"),
    "ClipByValue": lambda x: RAW.ClipByValue(t=x, clip_value_min=0.2, clip_value_max=0.8),
    "EnsureShape": lambda x: tf.ensure_shape(x, [None, None, 4]),
}
NUMBERS = (tf.float32, tf.int32, tf.bool, tf.complex64)


def calls(operator: str) -> list[list[tuple[Any, Function]]]:
    """The operator with the sequence in each place in turn, of kinds of which it takes some.

    What has no time is in the other places.
    """
    if operator in SPECIAL:
        return [[(tf.float32, SPECIAL[operator])]]
    places = [a.name for a in op_def_registry.get(operator).input_arg]

    def call(place: str, beside: Any) -> Function:
        others = {p: tf.cast(tf.ones([1, 1, FEATURES]), beside) for p in places if p != place}
        return lambda x: getattr(RAW, operator)(**others, **{place: x})

    return [
        [(dtype, call(place, beside)) for dtype in NUMBERS for beside in {dtype, tf.bool, tf.float32}]
        for place in places
    ]


@pytest.mark.parametrize("operator", ELEMENTWISE)
def test_an_elementwise_operator(operator: str) -> None:
    for kinds in calls(operator):
        for dtype, function in kinds:
            with contextlib.suppress(TypeError, ValueError, tf.errors.OpError):  # it does not take these
                moves = moved(function, dtype, (FEATURES,))
                break
        else:
            pytest.fail("it takes none of them")
        trace = traced(function, dtype)
        assert operator in operators(trace)
        assert fault(trace) == ""
        assert not np.any(moves & ~told(trace))


SEED = (1, 2)
OF_NOTHING: dict[str, Function] = {
    "Const": lambda x: 3.0,
    "OnesLike": lambda x: tf.raw_ops.OnesLike(x=x),
    "ZerosLike": lambda x: tf.raw_ops.ZerosLike(x=x),
    "RandomStandardNormal": lambda x: tf.random.normal(tf.shape(x)),
    "RandomUniform": lambda x: tf.random.uniform(tf.shape(x)),
    "RandomUniformInt": lambda x: tf.random.uniform(tf.shape(x), maxval=5, dtype=tf.int32),
    "TruncatedNormal": lambda x: tf.random.truncated_normal(tf.shape(x)),
    "Rank": lambda x: tf.raw_ops.Rank(input=x),
    "ReadVariableOp": lambda x: VARIABLE[3],
    "StatelessRandomGetAlg": lambda x: tf.raw_ops.StatelessRandomGetAlg(),
    "StatelessRandomGetKeyCounter": lambda x: tf.random.stateless_uniform([4], SEED),
    "StatelessRandomNormalV2": lambda x: tf.random.stateless_normal(tf.shape(x), SEED),
    "StatelessRandomUniformIntV2": lambda x: tf.random.stateless_uniform(tf.shape(x), SEED, 0, 5, tf.int32),
    "StatelessRandomUniformV2": lambda x: tf.random.stateless_uniform(tf.shape(x), SEED),
    "StatelessTruncatedNormalV2": lambda x: tf.random.stateless_truncated_normal(tf.shape(x), SEED),
}


@pytest.mark.parametrize("operator", SOURCES)
def test_what_comes_of_no_time_step(operator: str) -> None:
    trace = traced(x_and(OF_NOTHING[operator]))
    assert operator in operators(trace)
    assert fault(trace) == ""


def test_an_operator_without_a_rule_mixes_all_that_it_reads() -> None:
    trace = traced(lambda x: tf.raw_ops.L2Loss(t=x) + 0 * x)
    assert "L2Loss" not in RULES
    assert fault(trace).startswith(f"{OTHER} (step 0 reads step 8: AddV2 <- L2Loss (no rule))")


def test_an_operator_without_a_rule_that_makes_as_many_as_there_are_steps_may_count_them() -> None:
    trace = traced(lambda x: x + tf.cast(tf.where(tf.ones([steps_of(x)]) > 0), x.dtype))
    assert "Where" not in RULES
    assert fault(trace).startswith(f"{INDEX} of the time step (AddV2 <- Where (no rule)")


def test_a_place_that_depends_on_data_mixes_all() -> None:
    trace = traced(lambda x: x[:, :, tf.cast(x[0, 0, 0], tf.int32) :][:, :, :1])
    assert fault(trace).startswith(OTHER)


def test_a_loop_is_no_operator_with_a_rule() -> None:
    def loop(x: Any) -> Any:
        return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 2), (0, x))[1]

    assert fault(traced(loop)).startswith(OTHER)


# A random composition is judged as brute force judges it.
LOCALS: dict[str, Function] = {
    "tanh": ops.tanh,
    "gate": lambda x: x * ops.sigmoid(ops.mean(x, -1, keepdims=True)),
    "dense": lambda x: ops.matmul(x, np.arange(16, dtype=np.float32).reshape(4, 4) / 16 - 0.4),
    "norm": lambda x: (x - ops.mean(x, -1, keepdims=True)) / (1 + ops.std(x, -1, keepdims=True)),
    "softmax": lambda x: ops.softmax(x, -1),
    "swap": lambda x: ops.concatenate([x[..., 2:], x[..., :2]], -1),
    "clip": lambda x: ops.where(x > 0.3, x, 0.1 * x),
    "shape": lambda x: ops.reshape(
        ops.transpose(ops.reshape(x, (-1, ops.shape(x)[1], 2, 2)), (0, 1, 3, 2)), ops.shape(x)
    ),
    "square": lambda x: ops.einsum("btf,btg->btf", x, x),
}
MIXING: dict[str, Function] = {
    "shift": lambda x: ops.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0))),
    "flip": lambda x: ops.flip(x, 1),
    "roll": lambda x: ops.roll(x, 2, 1),
    "sum": lambda x: ops.cumsum(x, 1),
    "mean": lambda x: x - ops.mean(x, 1, keepdims=True),
    "ramp": lambda x: x + ops.cast(ops.arange(ops.shape(x)[1]), "float32")[:, None],
    "share": lambda x: x / ops.cast(ops.shape(x)[1], "float32"),
    "first": lambda x: x + 0.5 * x[:, :1],
    "last": lambda x: x + 0.5 * x[:, -1:],
    "pool": lambda x: ops.average_pool(x, 3, 1, "same"),
    "attention": lambda x: ops.matmul(ops.softmax(ops.matmul(x, ops.transpose(x, (0, 2, 1)))), x),
}


@settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)
@given(st.lists(st.sampled_from([*LOCALS, *LOCALS, *MIXING]), min_size=1, max_size=4))
def test_a_random_composition_is_judged_as_brute_force_judges_it(names: list[str]) -> None:
    note(f"operations: {names}")

    def function(x: Any) -> Any:
        for name in names:
            x = (LOCALS | MIXING)[name](x)
        return x

    trace = traced(function)
    bits, found = told(trace), fault(trace)
    moves = moved(function, tf.float32, (FEATURES,))
    assert not np.any(moves & ~bits), "what moves was told"
    assert bool(found) == any(name in MIXING for name in names)
    own = 1 << np.arange(STEPS).reshape(1, STEPS, 1)
    if np.any(moves & ~own):
        assert found.startswith(OTHER)
    still = tf.repeat(drawn(tf.float32, (FEATURES,), 7, 1), STEPS, axis=1)
    y = np.asarray(function(still))
    if not np.allclose(y, y[:, :1], atol=1e-5) or not np.allclose(
        y[:, 0], np.asarray(function(still[:, :5]))[:, 0], atol=1e-5
    ):
        assert found, "it depends on the index or the length"
