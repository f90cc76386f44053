"""One rule an ONNX operator: here those that compute element by element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from . import moves, picks, sums
from .lowering import Lowering, Rule, attributes, refuse
from .values import Function as F  # noqa: N817 (named in nearly every line)
from .values import Reduction, View


def _unary(function: F) -> Rule:
    def rule(low: Lowering, node: Any) -> None:
        view = low.view(node.input[0])
        if view.integer and function != F.NOT:
            raise refuse(node, "of whole numbers")
        low.map(function, [view], low.out(node))

    return rule


def _binary(floats: F, integers: F | None = None, swapped: bool = False, negated: bool = False) -> Rule:
    def rule(low: Lowering, node: Any) -> None:
        views = low.inputs(node)
        if views[0].integer and integers is None:
            raise refuse(node, "of whole numbers")
        function = integers if views[0].integer and integers is not None else floats
        views = views[::-1] if swapped else views
        if negated:
            low.map(F.NOT, [low.map(function, views)], low.out(node))
        else:
            low.map(function, views, low.out(node))

    return rule


def _variadic(floats: F, integers: F) -> Rule:
    def rule(low: Lowering, node: Any) -> None:
        first, *others = low.inputs(node)
        function = integers if first.integer else floats
        for view in others[:-1]:
            first = low.map(function, [first, view])
        if others:
            low.map(function, [first, others[-1]], low.out(node))
        else:
            low.alias(node.output[0], first)

    return rule


def _mean(low: Lowering, node: Any) -> None:
    first, *others = low.inputs(node)
    for view in others:
        first = low.map(F.ADD, [first, view])
    low.map(F.DIVIDE, [first, float(len(node.input))], low.out(node))


def _cast(low: Lowering, node: Any) -> None:
    view, to = low.view(node.input[0]), low.source.dtypes[node.output[0]].kind
    kind = low.source.dtypes[node.input[0]].kind
    if kind == to or (kind in "biu" and to in "iu"):
        low.alias(node.output[0], view)
    elif to == "f":
        low.map(F.FLOAT_OF_INT, [view], low.out(node))
    elif to == "b":
        zero = (
            low.map(F.EQUAL_INT, [view, low.constant(np.int32(0))])
            if kind in "iu"
            else low.map(F.EQUAL, [view, 0.0])
        )
        low.map(F.NOT, [zero], low.out(node))
    else:
        low.map(F.INT_OF_FLOAT, [view], low.out(node))


def _divide(low: Lowering, node: Any) -> None:
    a, b = low.inputs(node)
    if not a.integer:
        low.map(F.DIVIDE, [a, b], low.out(node))
        return
    # ONNX rounds towards zero: one more than the floor where that is negative and something is left.
    floor, left, zero = low.map(F.QUOTIENT, [a, b]), low.map(F.REST, [a, b]), low.constant(np.int32(0))
    more = low.map(
        F.AND, [low.map(F.NOT, [low.map(F.EQUAL_INT, [left, zero])]), low.map(F.LESS_INT, [floor, zero])]
    )
    low.map(F.ADD_INT, [floor, more], low.out(node))


def _rest(low: Lowering, node: Any) -> None:
    a, b = low.inputs(node)
    if attributes(node).get("fmod", 0) or not a.integer:
        raise refuse(node, "of floats")
    low.map(F.REST, [a, b], low.out(node))


def _power(low: Lowering, node: Any) -> None:
    view, exponent = low.view(node.input[0]), low.needed(node, 1)
    if exponent.size != 1 or view.integer:
        raise refuse(node, "of an exponent that is not one number")
    power = float(exponent.reshape(()))
    halves = round(2 * abs(power))
    if halves != 2 * abs(power) or not 1 <= halves <= 16:
        raise refuse(node, f"to the power of {power:g}")
    result = low.map(F.ROOT, [view]) if halves % 2 else None
    for _ in range(halves // 2):
        result = view if result is None else low.map(F.MULTIPLY, [result, view])
    assert result is not None
    low.map(F.RECIPROCAL if power < 0 else F.COPY, [result], low.out(node))


# Activations, of what the format has.


def _scaled(low: Lowering, x: View, slope: float | View, out: View | None) -> View:
    """x where it is not negative, else slope * x."""
    return low.map(F.SELECT, [low.map(F.LESS, [x, 0.0]), low.map(F.MULTIPLY, [x, slope]), x], out)


def _exponential_unit(low: Lowering, x: View, alpha: float, rate: float = 1.0) -> View:
    """x where it is not negative, else alpha * (exp(x / rate) - 1)."""
    low_x = low.map(F.MINIMUM, [x, 0.0])
    e = low.map(F.EXP, [low_x if rate == 1.0 else low.map(F.DIVIDE, [low_x, rate])])
    part = low.map(F.MULTIPLY, [low.map(F.SUBTRACT, [e, 1.0]), alpha])
    return low.map(F.SELECT, [low.map(F.LESS, [x, 0.0]), part, x])


def _clipped(
    low: Lowering, x: View, least: View | float, most: View | float, out: View | None = None
) -> View:
    return low.map(F.MINIMUM, [low.map(F.MAXIMUM, [x, least]), most], out)


def _hard_sigmoid(low: Lowering, x: View, alpha: float, beta: float) -> View:
    return _clipped(low, low.map(F.ADD, [low.map(F.MULTIPLY, [x, alpha]), beta]), 0.0, 1.0)


def _activation(make: Callable[[Lowering, View, dict[str, Any]], View]) -> Rule:
    def rule(low: Lowering, node: Any) -> None:
        low.alias(node.output[0], make(low, low.view(node.input[0]), attributes(node)))

    return rule


def _gelu(low: Lowering, x: View, a: dict[str, Any]) -> View:
    if a.get("approximate", "none") == "tanh":
        cubed = low.map(F.MULTIPLY, [low.map(F.MULTIPLY, [x, x]), x])
        inner = low.map(F.ADD, [x, low.map(F.MULTIPLY, [cubed, 0.044715])])
        t = low.map(F.TANH, [low.map(F.MULTIPLY, [inner, 0.7978845608028654])])
    else:
        t = low.map(F.ERF, [low.map(F.MULTIPLY, [x, 0.7071067811865476])])
    half = low.map(F.MULTIPLY, [x, 0.5])
    return low.map(F.MULTIPLY, [half, low.map(F.ADD, [t, 1.0])])


def _softsign(low: Lowering, x: View, a: dict[str, Any]) -> View:
    return low.map(F.DIVIDE, [x, low.map(F.ADD, [low.map(F.ABSOLUTE, [x]), 1.0])])


def _hard_swish(low: Lowering, x: View, a: dict[str, Any]) -> View:
    return low.map(F.MULTIPLY, [x, _hard_sigmoid(low, x, 1 / 6, 0.5)])


def _mish(low: Lowering, x: View, a: dict[str, Any]) -> View:
    return low.map(F.MULTIPLY, [x, low.map(F.TANH, [low.map(F.SOFTPLUS, [x])])])


def _selu(low: Lowering, x: View, a: dict[str, Any]) -> View:
    alpha, gamma = a.get("alpha", 1.6732632423543772), a.get("gamma", 1.0507009873554805)
    return low.map(F.MULTIPLY, [_exponential_unit(low, x, alpha), gamma])


def _thresholded(low: Lowering, x: View, a: dict[str, Any]) -> View:
    return low.map(F.SELECT, [low.map(F.LESS, [a.get("alpha", 1.0), x]), x, 0.0])


def _clip(low: Lowering, node: Any) -> None:
    ends = [low.view(n) if n else None for n in (*node.input[1:], "", "")[:2]]
    x = low.view(node.input[0])
    larger, smaller = (F.MAXIMUM_INT, F.MINIMUM_INT) if x.integer else (F.MAXIMUM, F.MINIMUM)
    for function, end in zip((larger, smaller), ends, strict=True):
        x = x if end is None else low.map(function, [x, end])
    low.alias(node.output[0], x)


def _softmax(low: Lowering, node: Any) -> None:
    x = low.view(node.input[0])
    axis = attributes(node).get("axis", -1) % len(x.shape)
    last = [i for i in range(len(x.shape)) if i != axis] + [axis]
    moved = x.permuted(last)

    def along(view: View) -> View:
        return replace(view, shape=(*view.shape, 1), strides=(*view.strides, 0)).broadcast(moved.shape)

    shifted = low.map(F.SUBTRACT, [moved, along(low.reduce(Reduction.LARGEST, [moved], 1))])
    e = low.map(F.EXP, [shifted])
    total, out = low.reduce(Reduction.SUM, [e], 1), low.out(node).permuted(last)
    if node.op_type == "Softmax":
        low.map(F.DIVIDE, [e, along(total)], out)
    else:
        low.map(F.SUBTRACT, [shifted, along(low.map(F.LOG, [total]))], out)


def _sloped(low: Lowering, node: Any) -> None:
    x, slope = low.inputs(node)
    _scaled(low, x, slope, low.out(node))


# pi in three parts, of which the first two times a whole number below 2^15 are exact, and the sine of r
# within pi / 2 as r + r * s * P(s), s = r * r. Right to 1e-6 for |x| up to MOST_ANGLE, and NaN beyond.
MOST_ANGLE = 30000.0
PI = (3.140625, 9.67502593994140625e-4, 1.509957990978376432e-7)
SINE = (
    -0.16666666630490257,
    0.008333331280306817,
    -0.00019840889118327953,
    2.7526384646545704e-06,
    -2.3905384008411085e-08,
)


def _sine(low: Lowering, node: Any) -> None:
    x, is_cosine = low.view(node.input[0]), node.op_type == "Cos"
    turns = low.map(F.MULTIPLY, [x, 0.3183098861837907])
    count = low.map(F.ROUND, [low.map(F.SUBTRACT, [turns, 0.5]) if is_cosine else turns])
    r, halves = x, low.map(F.ADD, [count, 0.5]) if is_cosine else count
    for part in PI:
        r = low.map(F.SUBTRACT, [r, low.map(F.MULTIPLY, [halves, part])])
    s = low.map(F.MULTIPLY, [r, r])
    p: View | float = SINE[-1]
    for c in SINE[-2::-1]:
        p = low.map(F.ADD, [low.map(F.MULTIPLY, [p, s]), c])
    sine = low.map(F.ADD, [low.map(F.MULTIPLY, [low.map(F.MULTIPLY, [p, s]), r]), r])
    even = low.map(F.ROUND, [low.map(F.MULTIPLY, [count, 0.5])])
    is_even = low.map(F.EQUAL, [low.map(F.ADD, [even, even]), count])
    signs = (-1.0, 1.0) if is_cosine else (1.0, -1.0)
    known = low.map(F.AT_MOST, [low.map(F.ABSOLUTE, [x]), MOST_ANGLE])
    sign = low.map(F.SELECT, [known, low.map(F.SELECT, [is_even, *signs]), float("nan")])
    low.map(F.MULTIPLY, [sine, sign], low.out(node))


def _where(low: Lowering, node: Any) -> None:
    low.map(F.SELECT, low.inputs(node), low.out(node))


RULES: dict[str, Rule] = {
    **{
        name: _unary(function)
        for name, function in {
            "Abs": F.ABSOLUTE,
            "Ceil": F.CEILING,
            "Erf": F.ERF,
            "Exp": F.EXP,
            "Floor": F.FLOOR,
            "Log": F.LOG,
            "Neg": F.NEGATE,
            "Not": F.NOT,
            "Reciprocal": F.RECIPROCAL,
            "Relu": F.RELU,
            "Round": F.ROUND,
            "Sigmoid": F.SIGMOID,
            "Sign": F.SIGN,
            "Softplus": F.SOFTPLUS,
            "Sqrt": F.ROOT,
            "Tanh": F.TANH,
        }.items()
    },
    "Add": _binary(F.ADD, F.ADD_INT),
    "And": _binary(F.AND, F.AND),
    "Celu": _activation(
        lambda low, x, a: _exponential_unit(low, x, a.get("alpha", 1.0), a.get("alpha", 1.0))
    ),
    "Cast": _cast,
    "Clip": _clip,
    "Cos": _sine,
    "Div": _divide,
    "Elu": _activation(lambda low, x, a: _exponential_unit(low, x, a.get("alpha", 1.0))),
    "Equal": _binary(F.EQUAL, F.EQUAL_INT),
    "Gelu": _activation(_gelu),
    "Greater": _binary(F.LESS, F.LESS_INT, swapped=True),
    "GreaterOrEqual": _binary(F.AT_MOST, F.AT_MOST_INT, swapped=True),
    "HardSigmoid": _activation(
        lambda low, x, a: _hard_sigmoid(low, x, a.get("alpha", 0.2), a.get("beta", 0.5))
    ),
    "HardSwish": _activation(_hard_swish),
    "LeakyRelu": _activation(lambda low, x, a: _scaled(low, x, a.get("alpha", 0.01), None)),
    "Less": _binary(F.LESS, F.LESS_INT),
    "LessOrEqual": _binary(F.AT_MOST, F.AT_MOST_INT),
    "LogSoftmax": _softmax,
    "Max": _variadic(F.MAXIMUM, F.MAXIMUM_INT),
    "Mean": _mean,
    "Min": _variadic(F.MINIMUM, F.MINIMUM_INT),
    "Mish": _activation(_mish),
    "Mod": _rest,
    "Mul": _binary(F.MULTIPLY, F.MULTIPLY_INT),
    "Or": _binary(F.OR, F.OR),
    "PRelu": _sloped,
    "Pow": _power,
    "Selu": _activation(_selu),
    "Sin": _sine,
    "Softmax": _softmax,
    "Softsign": _activation(_softsign),
    "Sub": _binary(F.SUBTRACT, F.SUBTRACT_INT),
    "Sum": _variadic(F.ADD, F.ADD_INT),
    "ThresholdedRelu": _activation(_thresholded),
    "Where": _where,
    **moves.RULES,
    **picks.RULES,
    **sums.RULES,
}
