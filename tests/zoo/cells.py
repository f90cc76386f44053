"""Recurrent layers of papers, as cells of one's own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from .case import Signal, case

FEATURES = 4


def model_of(cell: Any, features: int = FEATURES) -> keras.Model:
    """A cell over a signal of any length, and a Dense."""
    x = keras.Input((None, features))
    return keras.Model(x, layers.Dense(3)(layers.RNN(cell, return_sequences=True)(x)))


class Cell(layers.Layer):
    """What all cells here share: their size, and weights by name."""

    def __init__(self, units: int = 6, **options: Any) -> None:
        super().__init__(**options)
        self.units = self.state_size = self.output_size = units

    def weight(self, name: str, *shape: int, start: str = "glorot_uniform") -> Any:
        return self.add_weight(shape=shape, initializer=start, name=name)


class Pooling(Cell):
    """fo-pooling of a QRNN: candidate, forget gate and output gate in one vector."""

    def call(self, x: Any, states: Any) -> Any:
        z, f, o = ops.split(x, 3, axis=-1)
        f = ops.sigmoid(f)
        c = f * states[0] + (1 - f) * ops.tanh(z)
        return ops.sigmoid(o) * c, [c]


@case(Signal())
def qrnn() -> keras.Model:
    """Bradbury et al. 2017, Quasi-recurrent neural networks; DingKe/nn_playground.

    Causal Conv1D of 2 that makes all gates, a cell that only multiplies and adds; two layers.
    """
    x = y = keras.Input((None, FEATURES))
    for _ in range(2):
        y = layers.RNN(Pooling(6), return_sequences=True)(layers.Conv1D(18, 2, padding="causal")(y))
    return keras.Model(x, layers.Dense(3)(y))


class SRUCell(Cell):
    """Its gates do not read the state."""

    def __init__(self, units: int = 6) -> None:
        super().__init__(units)
        self.state_size = [units, units]

    def build(self, shape: Any) -> None:
        self.kernel = self.weight("kernel", shape[-1], 4 * self.units)
        self.bias = self.weight("bias", 2 * self.units, start="zeros")

    def call(self, x: Any, states: Any) -> Any:
        z, gates, skip = ops.split(x @ self.kernel, [self.units, 3 * self.units], axis=-1)
        f, r = ops.split(ops.sigmoid(gates + self.bias), 2, axis=-1)
        c = f * states[1] + (1 - f) * z
        h = r * ops.tanh(c) + (1 - r) * skip
        return h, [h, c]


@case(Signal())
def sru() -> keras.Model:
    """Lei et al. 2018, Simple recurrent units; titu1994/keras-SRU.

    A cell of two states, h and c, that reads c alone.
    """
    return model_of(SRUCell())


class IndRNNCell(Cell):
    """Each unit reads its own past alone."""

    def __init__(self, units: int = 6) -> None:
        super().__init__(units)
        self.state_size = (units,)

    def build(self, shape: Any) -> None:
        self.kernel = self.weight("input_kernel", shape[-1], self.units)
        self.recurrent = self.weight("recurrent_kernel", self.units, start="ones")
        self.bias = self.weight("bias", self.units, start="zeros")

    def call(self, x: Any, states: Any) -> Any:
        h = ops.relu(x @ self.kernel + states[0] * ops.clip(self.recurrent, -1.0, 1.0) + self.bias)
        return h, [h]


@case(Signal())
def indrnn() -> keras.Model:
    """Li et al. 2018, Independently recurrent neural network; titu1994/Keras-IndRNN.

    Two cells with ReLU whose recurrence is a vector that is clipped, BatchNormalization between.
    """
    x = keras.Input((None, FEATURES))
    y = layers.BatchNormalization()(layers.RNN(IndRNNCell(), return_sequences=True)(x))
    return keras.Model(x, layers.Dense(3)(layers.RNN(IndRNNCell(), return_sequences=True)(y)))


class LMUCell(Cell):
    """A linear memory of what came in during `theta` steps, read by a cell within."""

    def __init__(self, hidden: Any, order: int = 5, theta: float = 20.0) -> None:
        super().__init__(hidden.units)
        self.hidden, self.order = hidden, order
        self.state_size = [
            2 * order,
            *([hidden.units] if isinstance(hidden.state_size, int) else hidden.state_size),
        ]
        # The Legendre memory, discretised by Euler's rule.
        q = np.arange(order)
        row, column = np.meshgrid(q, q, indexing="ij")
        a = np.where(row < column, -1.0, (-1.0) ** (row - column + 1)) * (2 * q + 1)[:, None]
        self.a = ops.convert_to_tensor((np.eye(order) + a / theta).T.astype(np.float32))
        self.b = ops.convert_to_tensor((((-1.0) ** q * (2 * q + 1)) / theta)[None].astype(np.float32))

    def build(self, shape: Any) -> None:
        self.kernel = self.weight("kernel", shape[-1] + self.units, 2)
        self.hidden.build((None, 2 * self.order + shape[-1]))

    def call(self, x: Any, states: Any) -> Any:
        memory, *inner = states
        u = ops.concatenate([x, inner[0]], axis=-1) @ self.kernel
        memory = ops.reshape(memory, (-1, 2, self.order)) @ self.a + u[..., None] @ self.b
        memory = ops.reshape(memory, (-1, 2 * self.order))
        y, inner = self.hidden(ops.concatenate([memory, x], axis=-1), inner)
        return y, [memory, *inner]


@case(Signal(), shake=0.05)
def legendre_memory_unit() -> keras.Model:
    """Voelker et al. 2019, Legendre memory units; nengo/keras-lmu.

    A cell of one's own around an LSTMCell: a memory of two signals of order 5, then h and c.
    """
    return model_of(LMUCell(layers.LSTMCell(6)))


class PhasedLSTMCell(layers.LSTMCell):
    """An LSTM whose units open by a rhythm of their own; its third state counts the steps."""

    def __init__(self, units: int) -> None:
        super().__init__(units)
        self.state_size = [units, units, 1]

    def build(self, shape: Any) -> None:
        super().build(shape)
        uniform = keras.initializers.RandomUniform(2.0, 30.0)
        self.period = self.add_weight(shape=(self.units,), initializer=uniform, name="period")
        self.shift = self.add_weight(shape=(self.units,), initializer=uniform, name="shift")
        self.open = self.add_weight(
            shape=(self.units,), initializer=keras.initializers.Constant(0.3), name="open"
        )

    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        h, c, t = states
        t = t + 1.0
        phase = ops.mod(t - self.shift, self.period) / self.period
        rising, falling = 2.0 * phase / self.open, 2.0 - 2.0 * phase / self.open
        gate = ops.where(phase < self.open / 2, rising, ops.where(phase < self.open, falling, 0.001 * phase))
        _, (new_h, new_c) = super().call(x, [h, c], training=training)
        h, c = gate * new_h + (1 - gate) * h, gate * new_c + (1 - gate) * c
        return h, [h, c, t]


@case(Signal(), shake=0.05)
def phased_lstm() -> keras.Model:
    """Neil et al. 2016, Phased LSTM; fferroni/PhasedLSTM-Keras.

    An LSTMCell with a gate of time: the remainder of a count of steps, which is a state.
    """
    return model_of(PhasedLSTMCell(6))


class MinimalGatedUnit(Cell):
    """A GRU of one gate."""

    def build(self, shape: Any) -> None:
        self.gate = self.weight("gate", shape[-1] + self.units, self.units)
        self.kernel = self.weight("kernel", shape[-1] + self.units, self.units)
        self.bias = self.weight("bias", 2, self.units, start="zeros")

    def call(self, x: Any, states: Any) -> Any:
        h = states[0]
        f = ops.sigmoid(ops.concatenate([x, h], axis=-1) @ self.gate + self.bias[0])
        h = (1 - f) * h + f * ops.tanh(ops.concatenate([x, f * h], axis=-1) @ self.kernel + self.bias[1])
        return h, [h]


@case(Signal())
def minimal_gated_unit() -> keras.Model:
    """Zhou et al. 2016, Minimal gated unit for recurrent neural networks.

    A GRU whose one gate forgets and resets.
    """
    return model_of(MinimalGatedUnit())


class MinGRUCell(Cell):
    """Neither gate nor candidate reads the state."""

    def build(self, shape: Any) -> None:
        self.gate, self.kernel = (self.weight(n, shape[-1], self.units) for n in ("gate", "kernel"))

    def call(self, x: Any, states: Any) -> Any:
        z = ops.sigmoid(x @ self.gate)
        h = (1 - z) * states[0] + z * (x @ self.kernel)
        return h, [h]


@case(Signal())
def min_gru() -> keras.Model:
    """Feng et al. 2024, Were RNNs all we needed?

    A GRU whose gate and candidate read the input alone; two layers with residuals and RMSNormalization.
    """
    x = keras.Input((None, FEATURES))
    y = layers.Dense(6)(x)
    for _ in range(2):
        y = layers.Add()([y, layers.RNN(MinGRUCell(), return_sequences=True)(layers.RMSNormalization()(y))])
    return keras.Model(x, layers.Dense(3)(y))


class LayerNormLSTMCell(Cell):
    """An LSTM that normalises the sums before its gates and the cell after."""

    def __init__(self, units: int = 6) -> None:
        super().__init__(units)
        self.state_size = [units, units]
        self.of_input, self.of_state, self.of_cell = (
            layers.LayerNormalization(epsilon=1e-3) for _ in range(3)
        )

    def build(self, shape: Any) -> None:
        self.kernel = self.weight("kernel", shape[-1], 4 * self.units)
        self.recurrent = self.weight("recurrent", self.units, 4 * self.units, start="orthogonal")
        self.bias = self.weight("bias", 4 * self.units, start="zeros")
        self.of_input.build((None, 4 * self.units))
        self.of_state.build((None, 4 * self.units))
        self.of_cell.build((None, self.units))

    def call(self, x: Any, states: Any) -> Any:
        h, c = states
        i, f, g, o = ops.split(
            self.of_input(x @ self.kernel) + self.of_state(h @ self.recurrent) + self.bias, 4, axis=-1
        )
        c = self.of_cell(ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g))
        h = ops.sigmoid(o) * ops.tanh(c)
        return h, [h, c]


@case(Signal())
def layer_norm_lstm() -> keras.Model:
    """Ba et al. 2016, Layer normalization; tensorflow/addons, LayerNormLSTMCell.

    An LSTM cell with three LayerNormalizations within.
    """
    return model_of(LayerNormLSTMCell())


class PeepholeLSTMCell(layers.LSTMCell):
    """Its gates see the cell too."""

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.peeps = self.add_weight(shape=(3, self.units), name="peephole_weights")

    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        h, c = states
        i, f, g, o = ops.split(x @ self.kernel + h @ self.recurrent_kernel + self.bias, 4, axis=-1)
        i, f = ops.sigmoid(i + self.peeps[0] * c), ops.sigmoid(f + self.peeps[1] * c)
        c = f * c + i * ops.tanh(g)
        h = ops.sigmoid(o + self.peeps[2] * c) * ops.tanh(c)
        return h, [h, c]


@case(Signal())
def peephole_lstm() -> keras.Model:
    """Gers et al. 2002, Learning precise timing with LSTM; tensorflow/addons, PeepholeLSTMCell.

    A subclass of LSTMCell with weights from the cell to the gates.
    """
    return model_of(PeepholeLSTMCell(6))


class ZoneoutLSTMCell(layers.LSTMCell):
    """Outside training a state keeps a share of what it was."""

    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        y, after = super().call(x, states, training=training)
        return y, [0.1 * old + 0.9 * new for old, new in zip(states, after, strict=True)]


@case(Signal())
def zoneout_lstm() -> keras.Model:
    """Krueger et al. 2017, Zoneout; Tacotron 2.

    A subclass of LSTMCell that mixes old and new states, so that its output is not its h.
    """
    return model_of(ZoneoutLSTMCell(6))


class RecurrentHighwayCell(Cell):
    """Several highway layers in each time step."""

    def build(self, shape: Any) -> None:
        self.kernel = self.weight("kernel", shape[-1], 2 * self.units)
        self.recurrent = [self.weight(f"recurrent_{i}", self.units, 2 * self.units) for i in range(3)]
        self.bias = [self.weight(f"bias_{i}", 2 * self.units, start="zeros") for i in range(3)]

    def call(self, x: Any, states: Any) -> Any:
        s = states[0]
        for i, (recurrent, bias) in enumerate(zip(self.recurrent, self.bias, strict=True)):
            z = s @ recurrent + bias + (x @ self.kernel if i == 0 else 0)
            h, t = ops.split(z, 2, axis=-1)
            t = ops.sigmoid(t)
            s = ops.tanh(h) * t + s * (1 - t)
        return s, [s]


@case(Signal())
def recurrent_highway_network() -> keras.Model:
    """Zilly et al. 2017, Recurrent highway networks.

    A cell of three highway layers a time step.
    """
    return model_of(RecurrentHighwayCell())


class LNSimpleRNNCell(Cell):
    """A SimpleRNNCell, then LayerNormalization, then tanh."""

    def __init__(self, units: int = 6) -> None:
        super().__init__(units)
        self.inner = layers.SimpleRNNCell(units, activation=None)
        self.norm = layers.LayerNormalization()

    def build(self, shape: Any) -> None:
        self.inner.build(shape)
        self.norm.build((None, self.units))

    def get_initial_state(self, batch_size: Any = None) -> Any:
        return [ops.zeros((batch_size, self.state_size))]

    def call(self, x: Any, states: Any) -> Any:
        y, _ = self.inner(x, states)
        y = ops.tanh(self.norm(y))
        return y, [y]


@case(Signal(), shake=0.05)
def layer_norm_simple_rnn() -> keras.Model:
    """Hands-On Machine Learning 2, chapter 15.

    A cell of a SimpleRNNCell and a LayerNormalization; two layers, TimeDistributed Dense.
    """
    x = keras.Input((None, 1))
    y = layers.RNN(LNSimpleRNNCell(), return_sequences=True)(x)
    y = layers.RNN(LNSimpleRNNCell(), return_sequences=True)(y)
    return keras.Model(x, layers.TimeDistributed(layers.Dense(10))(y))


class ResidualCell(layers.Layer):
    """A cell, and its input added to its output."""

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell = cell
        self.state_size, self.output_size = cell.state_size, cell.output_size

    def build(self, shape: Any) -> None:
        self.cell.build(shape)

    def call(self, x: Any, states: Any) -> Any:
        y, after = self.cell(x, states)
        return x + y, after


@case(Signal())
def residual_cells() -> keras.Model:
    """magenta/magenta, events_rnn_graph.make_rnn_cell with residual connections.

    StackedRNNCells of cells of one's own around LSTMCells, behind a Dense.
    """
    x = keras.Input((None, FEATURES))
    cells = layers.StackedRNNCells([ResidualCell(layers.LSTMCell(6)) for _ in range(3)])
    return keras.Model(x, layers.Dense(3)(layers.RNN(cells, return_sequences=True)(layers.Dense(6)(x))))


@case(Signal())
def deep_gru_of_cells() -> keras.Model:
    """Dive into Deep Learning, Deep recurrent neural networks.

    An RNN of a list of GRUCells that returns its states, Dense.
    """
    x = keras.Input((None, FEATURES))
    y, *_ = layers.RNN(
        [layers.GRUCell(6, dropout=0.1) for _ in range(2)], return_sequences=True, return_state=True
    )(x)
    return keras.Model(x, layers.Dense(3)(y))


class GRUDCell(Cell):
    """A GRU that fades its state and its last input by the time since each value was seen.

    Its input is values, which of them were seen, and how long ago each was seen last.
    """

    def __init__(self, units: int = 6, features: int = 3) -> None:
        super().__init__(units)
        self.features = features
        self.state_size = [units, features]
        self.cell = layers.GRUCell(units)

    def build(self, shape: Any) -> None:
        self.of_input = self.weight("input_decay", self.features, start="ones")
        self.of_state = self.weight("state_decay", self.features, self.units)
        self.mean = self.weight("mean", self.features, start="zeros")
        self.cell.build((None, 2 * self.features))

    def call(self, x: Any, states: Any) -> Any:
        h, last = states
        value, score, since = ops.split(x, 3, axis=-1)
        seen = ops.cast(score > 0, value.dtype)
        last = ops.where(seen > 0, value, last)
        fade = ops.exp(-ops.relu(self.of_input * since))
        value = seen * value + (1 - seen) * (fade * last + (1 - fade) * self.mean)
        h = h * ops.exp(-ops.relu(ops.abs(since) @ self.of_state))
        y, (h,) = self.cell(ops.concatenate([value, seen], axis=-1), [h])
        return y, [h, last]


@case(Signal())
def gru_d() -> keras.Model:
    """Che et al. 2018, Recurrent neural networks for multivariate time series with missing values.

    A cell around a GRUCell that decays its state and fills in what is missing; states h and the values seen
    last.
    """
    return model_of(GRUDCell(), 9)


class CfCCell(Cell):
    """A closed form of a liquid time constant: two candidates, mixed by a gate of time."""

    def __init__(self, units: int = 6) -> None:
        super().__init__(units)
        self.backbone = layers.Dense(7, activation="tanh")
        self.first, self.second = (
            layers.Dense(units, activation="tanh"),
            layers.Dense(units, activation="tanh"),
        )
        self.a, self.b = layers.Dense(units), layers.Dense(units)

    def build(self, shape: Any) -> None:
        self.backbone.build((None, shape[-1] + self.units))
        for layer in (self.first, self.second, self.a, self.b):
            layer.build((None, 7))

    def call(self, x: Any, states: Any) -> Any:
        z = self.backbone(ops.concatenate([x, states[0]], axis=-1))
        gate = ops.sigmoid(self.b(z) - self.a(z))
        h = self.first(z) * (1.0 - gate) + gate * self.second(z)
        return h, [h]


@case(Signal())
def closed_form_continuous() -> keras.Model:
    """Hasani et al. 2022, Closed-form continuous-time neural networks; mlech26l/ncps.

    A cell of five Dense layers.
    """
    return model_of(CfCCell())


class LiquidCell(Cell):
    """A liquid time constant, solved by six steps of a fused Euler rule."""

    def build(self, shape: Any) -> None:
        self.kernel = self.weight("kernel", shape[-1] + self.units, self.units)
        self.bias, self.reversal = (
            self.weight("bias", self.units, start="zeros"),
            self.weight("reversal", self.units, start="ones"),
        )
        self.leak = self.weight("leak", self.units, start="ones")

    def call(self, x: Any, states: Any) -> Any:
        h = states[0]
        for _ in range(6):
            f = ops.sigmoid(ops.concatenate([x, h], axis=-1) @ self.kernel + self.bias)
            h = (h + f * self.reversal / 6) / (1 + (ops.softplus(self.leak) + f) / 6)
        return h, [h]


@case(Signal())
def liquid_time_constant() -> keras.Model:
    """Hasani et al. 2021, Liquid time-constant networks; mlech26l/ncps.

    A cell that takes six steps of a solver in each time step.
    """
    return model_of(LiquidCell())


class ReservoirCell(Cell):
    """Fixed random weights and a leak."""

    def build(self, shape: Any) -> None:
        uniform = keras.initializers.RandomUniform(-0.5, 0.5)
        self.kernel = self.add_weight(
            shape=(shape[-1], self.units), initializer=uniform, trainable=False, name="in"
        )
        self.recurrent = self.add_weight(
            shape=(self.units, self.units), initializer="orthogonal", trainable=False, name="reservoir"
        )

    def call(self, x: Any, states: Any) -> Any:
        h = 0.7 * states[0] + 0.3 * ops.tanh(x @ self.kernel + 0.9 * states[0] @ self.recurrent)
        return h, [h]


@case(Signal(), shake=0.02)
def echo_state_network() -> keras.Model:
    """Jaeger 2001, Echo state networks; tensorflow/addons, ESNCell.

    A cell of weights that are not trained, Dense on its state.
    """
    return model_of(ReservoirCell(12))


class FastGRNNCell(Cell):
    """One matrix pair for the gate and the candidate, both of low rank."""

    def build(self, shape: Any) -> None:
        self.w1, self.w2 = self.weight("w1", shape[-1], 3), self.weight("w2", 3, self.units)
        self.u1, self.u2 = self.weight("u1", self.units, 3), self.weight("u2", 3, self.units)
        self.bias = self.weight("bias", 2, self.units, start="ones")
        self.zeta, self.nu = self.weight("zeta", 1, start="ones"), self.weight("nu", 1, start="zeros")

    def call(self, x: Any, states: Any) -> Any:
        z = x @ self.w1 @ self.w2 + states[0] @ self.u1 @ self.u2
        gate, candidate = ops.sigmoid(z + self.bias[0]), ops.tanh(z + self.bias[1])
        h = (ops.sigmoid(self.zeta) * (1 - gate) + ops.sigmoid(self.nu)) * candidate + gate * states[0]
        return h, [h]


@case(Signal())
def fast_grnn() -> keras.Model:
    """Kusupati et al. 2018, FastGRNN; microsoft/EdgeML.

    A cell of low-rank matrices that its gate and candidate share.
    """
    return model_of(FastGRNNCell())


class RealGatedLRUCell(Cell):
    """A diagonal recurrence whose decay is gated by the input."""

    def build(self, shape: Any) -> None:
        self.gates = self.weight("gates", self.units, 2 * self.units)
        self.decay = self.weight("decay", self.units, start="ones")

    def call(self, x: Any, states: Any) -> Any:
        r, i = ops.split(ops.sigmoid(x @ self.gates), 2, axis=-1)
        a = ops.exp(-8.0 * r * ops.softplus(self.decay))
        h = a * states[0] + ops.sqrt(1.0 - ops.square(a)) * (i * x)
        return h, [h]


@case(Signal())
def griffin() -> keras.Model:
    """De et al. 2024, Griffin and RecurrentGemma: the recurrent block.

    RMSNormalization, Dense with gelu as a gate, Dense, depthwise causal Conv1D of 4, a diagonal cell;
    residual.
    """
    x = keras.Input((None, FEATURES))
    y = layers.Dense(6)(x)
    z = layers.RMSNormalization()(y)
    gate = layers.Dense(6, activation="gelu")(z)
    z = layers.Conv1D(6, 4, padding="causal", groups=6)(layers.Dense(6)(z))
    z = layers.Multiply()([gate, layers.RNN(RealGatedLRUCell(), return_sequences=True)(z)])
    return keras.Model(x, layers.Dense(3)(layers.Add()([y, layers.Dense(6)(z)])))


class SelectiveCell(Cell):
    """Several numbers for each channel, whose step size, input and output weights the input makes."""

    def __init__(self, units: int = 6, order: int = 4) -> None:
        super().__init__(units)
        self.order, self.state_size = order, units * order

    def build(self, shape: Any) -> None:
        self.maker = self.weight("maker", self.units, 2 * self.order + 1)
        self.step = self.weight("step", 1, self.units)
        self.skip = self.weight("skip", self.units, start="ones")
        start = np.log(np.repeat(np.arange(1.0, self.order + 1)[None], self.units, axis=0)).astype(np.float32)
        self.log_a = self.add_weight(shape=start.shape, initializer=lambda *a, **k: start, name="log_a")

    def call(self, x: Any, states: Any) -> Any:
        b, c, step = ops.split(x @ self.maker, [self.order, 2 * self.order], axis=-1)
        step = ops.softplus(step @ self.step)[..., None]
        h = ops.reshape(states[0], (-1, self.units, self.order))
        h = ops.exp(-step * ops.exp(self.log_a)) * h + step * b[:, None] * x[..., None]
        y = ops.sum(h * c[:, None], axis=-1) + self.skip * x
        return y, [ops.reshape(h, (-1, self.units * self.order))]


@case(Signal())
def mamba() -> keras.Model:
    """Gu and Dao 2023, Mamba: one block, stepped.

    Dense cut in two, depthwise causal Conv1D of 4 with SiLU, a selective state space as a cell, a gate;
    residual.
    """
    x = keras.Input((None, FEATURES))
    y = layers.Dense(5)(x)
    z, gate = ops.split(layers.Dense(12, use_bias=False)(layers.RMSNormalization()(y)), 2, axis=-1)
    z = layers.Conv1D(6, 4, padding="causal", groups=6, activation="silu")(z)
    z = layers.RNN(SelectiveCell(), return_sequences=True)(z) * ops.silu(gate)
    return keras.Model(x, layers.Dense(3)(layers.Add()([y, layers.Dense(5, use_bias=False)(z)])))


class RWKVCell(Cell):
    """An average of all values, weighted by keys and fading with time; it also reads the last input."""

    def __init__(self, units: int = 6) -> None:
        super().__init__(units)
        self.state_size = [units, units, units]

    def build(self, shape: Any) -> None:
        half = keras.initializers.Constant(0.5)
        self.mix = self.add_weight(shape=(3, self.units), initializer=half, name="mix")
        self.kernels = [self.weight(name, self.units, self.units) for name in ("key", "value", "receptance")]
        self.decay = self.weight("decay", self.units, start="zeros")
        self.first = self.weight("first", self.units, start="ones")

    def call(self, x: Any, states: Any) -> Any:
        last, above, below = states
        mixed = [x * self.mix[i] + last * (1 - self.mix[i]) for i in range(3)]
        key, value, receptance = (m @ kernel for m, kernel in zip(mixed, self.kernels, strict=True))
        now = ops.exp(self.first + key)
        y = ops.sigmoid(receptance) * (above + now * value) / (below + now)
        fade, key = ops.exp(-ops.exp(self.decay)), ops.exp(key)
        return y, [x, fade * above + key * value, fade * below + key]


@case(Signal())
def rwkv() -> keras.Model:
    """Peng et al. 2023, RWKV: one block, as a recurrence.

    LayerNormalization, a cell of three states (the last input, a sum of values, a sum of weights), Dense;
    residual.
    """
    x = keras.Input((None, FEATURES))
    y = layers.Dense(6)(x)
    z = layers.RNN(RWKVCell(), return_sequences=True)(layers.LayerNormalization()(y))
    return keras.Model(x, layers.Dense(3)(layers.Add()([y, layers.Dense(6)(z)])))


class ExponentialLSTMCell(Cell):
    """An LSTM with exponential gates, kept in bounds by the largest so far; states h, c, n, m."""

    def __init__(self, units: int = 6) -> None:
        super().__init__(units)
        self.state_size = [units] * 4

    def build(self, shape: Any) -> None:
        self.kernel = self.weight("kernel", shape[-1], 4 * self.units)
        self.recurrent = self.weight("recurrent", self.units, 4 * self.units, start="orthogonal")
        self.bias = self.weight("bias", 4 * self.units, start="zeros")

    def call(self, x: Any, states: Any) -> Any:
        h, c, n, m = states
        i, f, z, o = ops.split(x @ self.kernel + h @ self.recurrent + self.bias, 4, axis=-1)
        f = ops.log_sigmoid(f)
        most = ops.maximum(f + m, i)
        i, f = ops.exp(i - most), ops.exp(f + m - most)
        c, n = f * c + i * ops.tanh(z), f * n + i
        h = ops.sigmoid(o) * c / n
        return h, [h, c, n, most]


@case(Signal())
def xlstm_scalar_memory() -> keras.Model:
    """Beck et al. 2024, xLSTM: the sLSTM.

    A cell of four states with exponential gates and a running maximum; LayerNormalization, Dense.
    """
    x = keras.Input((None, FEATURES))
    y = layers.RNN(ExponentialLSTMCell(), return_sequences=True)(x)
    return keras.Model(x, layers.Dense(3)(layers.LayerNormalization()(y)))


class MatrixMemoryCell(Cell):
    """A matrix that keys write and queries read, and fades."""

    def __init__(self, units: int = 4) -> None:
        super().__init__(units)
        self.state_size = units * units

    def build(self, shape: Any) -> None:
        self.kernel = self.weight("kernel", shape[-1], 3 * self.units)

    def call(self, x: Any, states: Any) -> Any:
        query, key, value = ops.split(x @ self.kernel, 3, axis=-1)
        memory = ops.reshape(states[0], (-1, self.units, self.units))
        memory = 0.9 * memory + key[:, :, None] * value[:, None, :]
        y = ops.squeeze(query[:, None] @ memory, 1)
        return y, [ops.reshape(memory, (-1, self.units * self.units))]


@case(Signal())
def retention() -> keras.Model:
    """Sun et al. 2023, RetNet; linear attention (Katharopoulos et al. 2020): the recurrent form.

    A cell whose state is a matrix, laid flat; RMSNormalization, Dense.
    """
    x = keras.Input((None, FEATURES))
    y = layers.RNN(MatrixMemoryCell(), return_sequences=True)(x)
    return keras.Model(x, layers.Dense(3)(layers.RMSNormalization()(y)))


@case(Signal(), refused="keeps an image as its state")
def next_frame() -> keras.Model:
    """Keras example, Next-frame video prediction with convolutional LSTMs.

    ConvLSTM2Ds with BatchNormalization, Conv3D sigmoid.
    """
    x = keras.Input((None, 8, 8, 1))
    y = layers.ConvLSTM2D(3, (5, 5), padding="same", return_sequences=True, activation="relu")(x)
    y = layers.ConvLSTM2D(3, (3, 3), padding="same", return_sequences=True)(layers.BatchNormalization()(y))
    return keras.Model(x, layers.Conv3D(1, (3, 3, 3), activation="sigmoid", padding="same")(y))


class Residual(layers.Layer):
    """Two dilated causal convolutions, and their input added."""

    def __init__(self, filters: int, kernel: int, dilation: int, norm: bool) -> None:
        super().__init__()
        self.convolutions = [
            layers.Conv1D(filters, kernel, dilation_rate=dilation, padding="causal") for _ in range(2)
        ]
        self.norms = [layers.LayerNormalization() for _ in range(2)] if norm else []
        self.dropout = layers.SpatialDropout1D(0.05)
        self.match = layers.Conv1D(filters, 1, padding="same")

    def build(self, shape: Any) -> None:
        after = (*shape[:2], self.match.filters)
        self.match.build(shape)
        for i, convolution in enumerate(self.convolutions):
            convolution.build(shape if i == 0 else after)
        for norm in self.norms:
            norm.build(after)

    def call(self, x: Any, training: bool = False) -> Any:
        y = x
        for i, convolution in enumerate(self.convolutions):
            y = convolution(y)
            y = self.norms[i](y) if self.norms else y
            y = self.dropout(ops.relu(y), training=training)
        return ops.relu(self.match(x) + y), y


class TCN(layers.Layer):
    """Residual blocks of doubling dilation, the sum of their skips, and the last step alone where asked."""

    def __init__(
        self, filters: int, dilations: tuple[int, ...], return_sequences: bool, norm: bool = False
    ) -> None:
        super().__init__()
        self.blocks = [Residual(filters, 3, dilation, norm) for dilation in dilations]
        self.filters, self.return_sequences = filters, return_sequences

    def build(self, shape: Any) -> None:
        for block in self.blocks:
            block.build(shape)
            shape = (*shape[:2], self.filters)

    def call(self, x: Any, training: bool = False) -> Any:
        skips = []
        for block in self.blocks:
            x, skip = block(x, training=training)
            skips.append(skip)
        y = layers.add(skips)
        return y if self.return_sequences else y[:, -1, :]

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:2], self.filters) if self.return_sequences else (shape[0], self.filters)


@case(Signal())
def tcn() -> keras.Model:
    """Bai et al. 2018, Temporal convolutional networks; philipperemy/keras-tcn.

    A layer of one's own that holds dilated causal Conv1Ds, residuals and skips; Dense.
    """
    x = keras.Input((None, FEATURES))
    return keras.Model(x, layers.Dense(3)(TCN(5, (1, 2, 4), return_sequences=True)(x)))


@case(Signal())
def tcn_of_sequential_mnist() -> keras.Model:
    """philipperemy/keras-tcn, tasks/mnist_pixel.

    The same with LayerNormalization, its last step alone; Dense, softmax, over windows.
    """
    return keras.Sequential(
        [
            layers.Input((60, 1)),
            TCN(5, (1, 2, 4, 8), return_sequences=False, norm=True),
            layers.Dense(10),
            layers.Activation("softmax"),
        ]
    )
