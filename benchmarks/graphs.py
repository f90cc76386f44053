"""Peers that run the same graph, or the Keras model itself."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from book import Book, Write, writer

from steprnn.export.formats.frozen import freeze
from steprnn.export.step.derive import derive


def keras_predict(book: Book) -> Write:
    """`model.predict` on one step, states in and out."""
    lstm, dense = (layer for layer in book.model.layers if layer.weights)
    token = keras.Input((1,), dtype="int32")
    given = [keras.Input((book.units,)) for _ in range(2)]
    sequence, *following = lstm(keras.ops.one_hot(token, dense.units), initial_state=given)
    model = keras.Model([token, *given], [dense(sequence), *following])
    states: list[Any] = []

    def step(token: int) -> int:
        logits, *states[:] = model.predict([np.array([[token]], np.int32), *states], verbose=0)
        return int(logits.argmax())

    def reset() -> None:
        states[:] = [np.zeros((1, book.units), np.float32) for _ in range(2)]

    return writer(reset, step)


def tf_function(book: Book) -> Write:
    """The step as a concrete function without variables."""
    function = freeze(derive(book.model))
    state: dict[str, Any] = {}

    def step(token: int) -> int:
        results = function(x=tf.constant([token]), **state)
        state.update(h=results["next_h"], c=results["next_c"])
        return int(results["y"].numpy().argmax())

    return writer(lambda: state.update(dict.fromkeys("hc", tf.zeros((1, book.units)))), step)


def openvino(book: Book) -> Write:
    """The same ONNX file, its tensors shared with NumPy."""
    import openvino

    core = openvino.Core()
    model = core.read_model(book.onnx)
    model.reshape({"x": [1], "h": [1, book.units], "c": [1, book.units]})
    options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", options).create_infer_request()
    x, h, c = (request.get_tensor(name).data for name in ("x", "h", "c"))
    y, next_h, next_c = (request.get_tensor(name).data for name in ("y", "next_h", "next_c"))

    def step(token: int) -> int:
        x[0] = token
        request.infer()
        h[...], c[...] = next_h, next_c
        return int(y.argmax())

    def reset() -> None:
        h[...] = c[...] = 0

    return writer(reset, step)


def onnxruntime_run(book: Book) -> Write:
    """`InferenceSession.run` with a dict in and a list out, as its documentation has it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(book.onnx), options, providers=["CPUExecutionProvider"])
    state: dict[str, Any] = {}

    def step(token: int) -> int:
        y, state["h"], state["c"] = session.run(
            ["y", "next_h", "next_c"], {"x": np.array([token], np.int32), **state}
        )
        return int(y.argmax())

    return writer(lambda: state.update(dict.fromkeys("hc", np.zeros((1, book.units), np.float32))), step)


def litert_signature(book: Book) -> Write:
    """LiteRT's signature runner, as its documentation has it."""
    from ai_edge_litert.interpreter import Interpreter

    step_of = Interpreter(str(book.tflite), num_threads=1).get_signature_runner("step")
    state: dict[str, Any] = {}

    def step(token: int) -> int:
        results = step_of(x=np.array([token], np.int32), **state)
        state.update(h=results["next_h"], c=results["next_c"])
        return int(results["y"].argmax())

    return writer(lambda: state.update(dict.fromkeys("hc", np.zeros((1, book.units), np.float32))), step)
