"""The same greedy text from the same weights by other means, one thread each.

Each function returns a `Write`, and raises ImportError where its package is not installed. What can look a
row of the kernel up does; what cannot multiplies a one-hot vector, as in the book.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from book import Book, Write, writer
from graphs import keras_predict, litert_signature, onnxruntime_run, openvino, tf_function

from steprnn.runtime.bench.rounds import MOST_STEPS


def numpy(book: Book) -> Write:
    """The textbook's step."""
    kernel, recurrent, bias, dense, dense_bias = book.arrays()
    kernel += bias
    states = np.zeros((2, book.units), np.float32)
    n = book.units

    def step(token: int) -> int:
        h, c = states
        gates = kernel[token] + h @ recurrent
        sigmoids = 1 / (1 + np.exp(-gates))
        c[:] = sigmoids[n : 2 * n] * c + sigmoids[:n] * np.tanh(gates[2 * n : 3 * n])
        h[:] = sigmoids[3 * n :] * np.tanh(c)
        return int((h @ dense + dense_bias).argmax())

    return writer(lambda: states.fill(0), step)


def jax(book: Book) -> Write:
    """The loop within one compiled function, a call for the whole text."""
    from jax import jit, lax, nn
    from jax import numpy as jnp

    kernel, recurrent, bias, dense, dense_bias = (jnp.asarray(array) for array in book.arrays())

    def step(carry: Any, token: Any) -> Any:
        h, c = carry
        i, f, g, o = jnp.split(kernel[token] + h @ recurrent + bias, 4)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
        h = nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), (h @ dense + dense_bias).argmax().astype(jnp.int32)

    @jit
    def run(prompt: Any, length: Any) -> Any:
        carry, following = lax.scan(step, (jnp.zeros(book.units), jnp.zeros(book.units)), prompt)

        def one(place: Any, loop: Any) -> Any:
            carry, token, tokens = loop
            carry, following = step(carry, token)
            return carry, following, tokens.at[place].set(token)

        return lax.fori_loop(0, length, one, (carry, following[-1], jnp.zeros(MOST_STEPS, jnp.int32)))[-1]

    def write(prompt: Sequence[int], length: int) -> list[int]:
        return np.asarray(run(np.array(prompt, np.int32), length))[:length].tolist()  # type: ignore[no-any-return]

    return write


def torch_cell(book: Book) -> Write:
    """`nn.LSTMCell` on a one-hot vector, eager."""
    torch = _torch()
    kernel, recurrent, bias, dense, dense_bias = (torch.tensor(array) for array in book.arrays())
    cell, head = torch.nn.LSTMCell(len(kernel), book.units), torch.nn.Linear(book.units, len(kernel))
    with torch.no_grad():  # PyTorch has the gates in the same order, and a second bias, here zero
        for parameter, value in (
            (cell.weight_ih, kernel.T),
            (cell.weight_hh, recurrent.T),
            (cell.bias_ih, bias),
            (cell.bias_hh, torch.zeros_like(bias)),
            (head.weight, dense.T),
            (head.bias, dense_bias),
        ):
            parameter.copy_(value)
    rows = torch.eye(len(kernel))
    state: list[Any] = []

    @torch.inference_mode()
    def step(token: int) -> int:
        state[:] = cell(rows[token : token + 1], tuple(state))
        return int(head(state[0]).argmax())

    return writer(lambda: state.__setitem__(slice(None), [torch.zeros(1, book.units)] * 2), step)


def torch_compiled(book: Book) -> Write:
    """The gates written out on a row of the kernel, through `torch.compile`."""
    torch = _torch()
    kernel, recurrent, bias, dense, dense_bias = (torch.tensor(array) for array in book.arrays())
    recurrent, dense = recurrent.T.contiguous(), dense.T.contiguous()
    linear = torch.nn.functional.linear

    @torch.compile(fullgraph=True, dynamic=False)
    def graph(token: Any, h: Any, c: Any) -> Any:
        i, f, g, o = (kernel[token] + linear(h, recurrent, bias)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return linear(h, dense, dense_bias).argmax(1), h, c

    state: list[Any] = []
    x = torch.zeros(1, dtype=torch.int64)

    @torch.inference_mode()
    def step(token: int) -> int:
        x[0] = token
        following, *state[:] = graph(x, *state)
        return int(following)

    return writer(lambda: state.__setitem__(slice(None), [torch.zeros(1, book.units)] * 2), step)


def _torch() -> Any:
    import torch

    torch.set_num_threads(1)
    return torch


PEERS: dict[str, Callable[[Book], Write]] = {
    "Keras `predict`": keras_predict,
    "TensorFlow, `tf.function`": tf_function,
    "PyTorch `LSTMCell`, eager": torch_cell,
    "PyTorch, `torch.compile`": torch_compiled,
    "NumPy": numpy,
    "JAX, the loop in one `jit`": jax,
    "OpenVINO": openvino,
    "`onnxruntime.run`": onnxruntime_run,
    "LiteRT signature runner": litert_signature,
}
