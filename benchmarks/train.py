"""Training speed against the notebook's own loop and PyTorch, side by side: `python benchmarks/train.py`.

All train the same model (one-hot -> LSTM -> Dense) with Adam at 1e-2, gradients clipped to one global norm,
on the same windows, from the same initial weights, and take turns, epoch by epoch: what else the machine
does hits all alike. A contender's clock runs in its own epochs alone; its first includes what it compiles.
PyTorch comes with the extra `bench`; without it, its rows are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

with contextlib.suppress(ImportError):  # PyTorch's compiler; loaded after TensorFlow, it crashes the process
    import triton  # noqa: F401

import keras
import numpy as np
import tensorflow as tf

from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.runtime.markdown import table
from steprnn.runtime.origin import install
from steprnn.train import corpus
from steprnn.train.model import build
from steprnn.train.settings import Settings
from steprnn.train.trainer import Trainer
from steprnn.train.windows import Windows

Epoch = Callable[[int], float]  # trains one epoch, returns its mean loss in nats a character


def ours(vocabulary: int, settings: Settings, windows: Windows, start: list[Any]) -> Epoch:
    """`steprnn train` without its files: Keras's fit on the faster forward pass, XLA-compiled."""
    model = build(vocabulary, settings)
    model.set_weights(start)
    trainer = Trainer(model, settings)
    losses: list[float] = []

    class Turn(keras.callbacks.Callback):  # type: ignore[misc] # Keras ships no types
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            trainer.reset_states()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            losses.append(float(logs["loss"]))

    def epoch(number: int) -> float:
        data = windows.dataset(range(number, number + 1))
        trainer.fit(data, steps_per_epoch=len(windows), callbacks=[Turn()], shuffle=False, verbose=0)
        return losses[-1]

    return epoch


def notebook(vocabulary: int, settings: Settings, windows: Windows, start: list[Any]) -> Epoch:
    """The notebook's loop, run eagerly over the windows; its loss and optimizer replaced by working ones."""
    layer = keras.layers.LSTM(settings.units, return_sequences=True, return_state=True)
    dense = keras.layers.Dense(vocabulary)
    dense(layer(np.zeros((1, 1, vocabulary), np.float32))[0])
    layer.set_weights(start[:3])
    dense.set_weights(start[3:])
    variables = layer.trainable_variables + dense.trainable_variables
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def epoch(number: int) -> float:
        state = [tf.zeros((settings.batch, settings.units))] * 2
        losses = []
        for x, y in windows.dataset(range(number, number + 1)):
            with tf.GradientTape() as tape:
                outputs, *state = layer(tf.one_hot(x, vocabulary), initial_state=state)
                loss = loss_of(y, dense(outputs))
            gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), settings.clip)
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
            losses.append(float(loss))
        return statistics.fmean(losses)

    return epoch


def pytorch(vocabulary: int, settings: Settings, windows: Windows, start: list[Any]) -> Epoch:
    """PyTorch's nn.LSTM on one-hot vectors, as the book's PyTorch version has it."""
    import torch

    lstm = torch.nn.LSTM(vocabulary, settings.units)
    linear = torch.nn.Linear(settings.units, vocabulary)
    # Keras and PyTorch both order the gates i, f, g, o; PyTorch has a second bias, here zero.
    kernel, recurrent, bias, head, head_bias = (torch.tensor(array) for array in start)
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(kernel.T)
        lstm.weight_hh_l0.copy_(recurrent.T)
        lstm.bias_ih_l0.copy_(bias)
        lstm.bias_hh_l0.zero_()
        linear.weight.copy_(head.T)
        linear.bias.copy_(head_bias)
    parameters = [*lstm.parameters(), *linear.parameters()]
    optimizer = torch.optim.Adam(parameters, settings.learning_rate, eps=1e-7)

    def epoch(number: int) -> float:
        state = None
        losses = []
        for x, y in windows.dataset(range(number, number + 1)).as_numpy_iterator():
            tokens, targets = torch.from_numpy(x).long(), torch.from_numpy(y).long()
            outputs, state = lstm(torch.nn.functional.one_hot(tokens.T, vocabulary).float(), state)
            state = tuple(part.detach() for part in state)
            logits = linear(outputs).reshape(-1, vocabulary)
            loss = torch.nn.functional.cross_entropy(logits, targets.T.reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
            optimizer.step()
            losses.append(float(loss))
        return statistics.fmean(losses)

    return epoch


def take_turns(
    contenders: dict[str, Epoch], epochs: int, goal: float
) -> Iterator[tuple[str, list[float], int | None]]:
    """Name, seconds of every epoch, and the epoch (from 1) that first reached the perplexity `goal`."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    reached: dict[str, int | None] = dict.fromkeys(contenders)
    for number in range(epochs):
        for name, epoch in contenders.items():
            if reached[name] is not None and number >= 10:
                continue
            began = time.perf_counter()
            loss = epoch(number)
            seconds[name].append(time.perf_counter() - began)
            if reached[name] is None and np.exp(loss) <= goal:
                reached[name] = number + 1
            print(
                f"epoch {number + 1} {name}: perplexity {np.exp(loss):.3f}, {seconds[name][-1]:.2f} s",
                file=sys.stderr,
            )
    for name in contenders:
        yield name, seconds[name], reached[name]


def main() -> None:
    """Measure, and print a Markdown table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", metavar="FILE", help="default: the embedded lyrics")
    parser.add_argument("--epochs", type=int, default=60, help="at most; a contender stops at the goal")
    parser.add_argument("--goal", metavar="X", type=float, default=1.05, help="perplexity to reach")
    parser.add_argument("--quick", action="store_true", help="5 epochs, speed alone")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    epochs = 5 if arguments.quick else arguments.epochs

    settings = Settings()
    text = corpus.load(arguments.corpus)
    vocabulary = Vocabulary.of(text.text)
    windows = Windows(vocabulary.encode(text.text), batch=settings.batch, window=settings.window)
    keras.utils.set_random_seed(settings.seed)
    start = build(len(vocabulary), settings).get_weights()

    makers = {"steprnn": ours, "notebook's loop": notebook, "PyTorch nn.LSTM": pytorch}
    contenders = {}
    for name, make in makers.items():
        try:
            contenders[name] = make(len(vocabulary), settings, windows, start)
        except ImportError as error:
            print(f"{name} is left out: {error}; run: {install('bench')}", file=sys.stderr)

    results = []
    for name, seconds, reached in take_turns(contenders, epochs, arguments.goal):
        typical = statistics.median(seconds[1:])
        results.append(
            {
                "name": name,
                "characters_per_second": windows.characters / typical,
                "seconds_to_goal": sum(seconds[:reached]) if reached else None,
                "epochs_to_goal": reached,
                "first_epoch_seconds": seconds[0],
            }
        )
    first = results[0]
    print(
        f"{text.name}: {len(text.text):,} characters, {len(vocabulary):,} distinct; {os.cpu_count()} cores\n"
    )
    goal = arguments.goal
    rows = []
    for row in results:
        speed = first["characters_per_second"] / row["characters_per_second"]
        spent = f"{row['seconds_to_goal']:.1f} ({row['epochs_to_goal']})" if row["epochs_to_goal"] else "-"
        mine, theirs = first["seconds_to_goal"], row["seconds_to_goal"]
        sooner = f"{theirs / mine:.2f} x" if mine and theirs else "-"
        rate, warm_up = f"{row['characters_per_second']:,.0f}", f"{row['first_epoch_seconds']:.1f}"
        rows.append([row["name"], rate, f"{speed:.2f} x", warm_up, spent, sooner])
    head = ["", "characters/s", "steprnn is", "first epoch, s", f"s (epochs) to {goal}", "steprnn is"]
    print("\n".join(table(head, rows)))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
