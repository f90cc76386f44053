"""A signal model, frame by frame: a small causal GRU that takes the noise out of a swinging sensor.

    python examples/signal_model.py

It is trained on the spot on made-up data, exported, and stepped as a device would step it: one frame in, one
out, with the state kept between them. Training and export need `steprnn[export]`; the stepping does not.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from steprnn.export import export
from steprnn.runtime import load

FRAMES = 120
NOISE = 0.5
RANGES = ((0.1, 0.4), (0.5, 1.5), (0.0, 6.28))  # of a sine's speed, height and phase


def swings(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy and clean signals, float32 `[rows, FRAMES, 1]`: sines of random speed, height and phase."""
    random = np.random.default_rng(seed)
    speed, height, phase = (random.uniform(low, high, (rows, 1)) for low, high in RANGES)
    clean = height * np.sin(speed * np.arange(FRAMES) + phase)
    noisy = clean + random.normal(0, NOISE, clean.shape)
    return noisy[..., None].astype(np.float32), clean[..., None].astype(np.float32)


def main() -> None:
    """Train, export, step, and say how much noise is left and how long a frame takes."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((None, 1)), keras.layers.GRU(16, return_sequences=True), keras.layers.Dense(1)]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
    model.fit(*swings(1024, seed=0), batch_size=64, epochs=8, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "swing.bundle"
        export(model, bundle, formats=("tflite", "onnx"), variants=("float32",))
        session = load(bundle).session()
    noisy, clean = swings(1, seed=99)
    started = time.perf_counter()
    stepped = np.stack([session.step(frame)[0] for frame in noisy[0]])  # each frame when it comes
    microseconds = (time.perf_counter() - started) / FRAMES * 1e6
    whole = model.predict(noisy, verbose=0)[0]
    left, before = (float(np.sqrt(np.mean((s - clean[0]) ** 2))) for s in (stepped, noisy[0]))
    print(f"noise: {before:.2f} before, {left:.2f} after")
    print(f"largest difference from the whole model: {np.abs(stepped - whole).max():.1e}")
    print(f"{microseconds:.0f} us a frame")


if __name__ == "__main__":
    main()
