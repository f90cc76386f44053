"""A denoiser, frame by frame: 10 ms of sound in, 10 ms out, with a gain for each band of the spectrum.

    python examples/denoiser.py noisy.wav clean.wav

reads noisy.wav (16 kHz, 16 bits, one channel), which is made up where it is not there: voices that glide, in
noise. The model, a small GRU, is trained on more of that on the spot and kept as denoiser.bundle beside
clean.wav; that needs `steprnn[export]`, what comes after it does not.
"""

from __future__ import annotations

import argparse
import time
import wave
from pathlib import Path

import numpy as np

from steprnn.runtime import Model, load

RATE, HOP = 16_000, 160  # samples a second, and of a frame
WINDOW = np.sin(np.pi * (np.arange(2 * HOP) + 0.5) / (2 * HOP)).astype(np.float32)  # twice, it adds up to 1
BINS = HOP + 1
EDGES = np.unique(np.geomspace(2, BINS, 23).astype(int))  # bands as wide as an ear's
BANDS = len(EDGES)
OF_BIN = np.searchsorted(EDGES, np.arange(BINS), side="right").clip(max=BANDS - 1)  # the band of each bin
FIRST = np.searchsorted(OF_BIN, np.arange(BANDS))  # bin of each band


def spectra(sound: np.ndarray) -> np.ndarray:
    """The spectrum of each frame and the one before it, complex `[..., frames, BINS]`."""
    frames = sound.reshape(*sound.shape[:-1], -1, HOP)
    before = np.concatenate([np.zeros_like(frames[..., :1, :]), frames[..., :-1, :]], axis=-2)
    return np.fft.rfft(np.concatenate([before, frames], axis=-1) * WINDOW)


def energies(spectrum: np.ndarray) -> np.ndarray:
    """Energy of each band, float32 `[..., BANDS]`."""
    return np.add.reduceat(np.abs(spectrum) ** 2, FIRST, axis=-1).astype(np.float32)


def features(spectrum: np.ndarray) -> np.ndarray:
    """What the model is given: about -1 to 1."""
    return np.log10(energies(spectrum) + 1e-6) / 3


def voices(seed: int, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Clean and noisy sound, float32: harmonics of a pitch that glides, in syllables, and coloured noise."""
    random = np.random.default_rng(seed)
    samples = int(seconds * RATE) // HOP * HOP
    at = np.arange(samples) / RATE
    pitch = random.uniform(90, 220) * 2 ** (0.3 * np.sin(random.uniform(1, 4) * at + random.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    formant = random.uniform(400, 2000) * 2 ** (0.5 * np.sin(random.uniform(4, 12) * at))
    clean = np.zeros(samples)
    for harmonic in range(1, 21):
        height = 1 / (1 + ((harmonic * pitch - formant) / 400) ** 2) + 0.3 / harmonic
        clean += height * np.sin(harmonic * phase + random.uniform(0, 6))
    clean *= np.clip(np.sin(2 * np.pi * random.uniform(1.5, 4) * at + random.uniform(0, 6)) + 0.4, 0, 1)
    clean *= 0.1 / clean.std()
    noise = np.convolve(random.standard_normal(samples), random.uniform(0, 1, 4), mode="same")
    noise *= 0.1 / noise.std() * 10 ** (-random.uniform(0, 10) / 20)  # 0 to 10 dB below the voice
    return clean.astype(np.float32), (clean + noise).astype(np.float32)


def train(bundle: Path) -> None:
    """Train on made-up voices and export; twenty seconds."""
    import keras

    from steprnn.export import export

    keras.utils.set_random_seed(1)
    pairs = [voices(seed, seconds=3) for seed in range(96)]
    clean, noisy = (spectra(np.stack(sounds)) for sounds in zip(*pairs, strict=True))
    wanted = np.sqrt(np.clip(energies(clean) / (energies(noisy) + 1e-9), 0, 1))
    layers = [keras.Input((None, BANDS)), keras.layers.GRU(48, return_sequences=True)]
    model = keras.Sequential([*layers, keras.layers.Dense(BANDS, activation="sigmoid")])
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
    model.fit(features(noisy), wanted, batch_size=16, epochs=12, verbose=0)
    export(model, bundle, formats=("tflite", "onnx"), variants=("float32",))


class Denoiser:
    """One stream of sound, as a device has it: a frame in, the frame before it out."""

    def __init__(self, model: Model) -> None:
        self._session = model.session()
        self._before = np.zeros(HOP, np.float32)  # the last frame that came
        self._rest = np.zeros(HOP, np.float32)  # what the last window adds to the next frame

    def frame(self, samples: np.ndarray) -> np.ndarray:
        """`[HOP]` float32 samples, 10 ms late."""
        spectrum = np.fft.rfft(np.concatenate([self._before, samples]) * WINDOW)
        gains = self._session.step(features(spectrum))
        assert isinstance(gains, np.ndarray)
        window = np.fft.irfft(spectrum * gains[0][OF_BIN]) * WINDOW
        finished = self._rest + window[:HOP]
        self._before, self._rest = samples, window[HOP:]
        return finished


def read(path: Path) -> np.ndarray:
    """The sound of a WAV file, whole frames of it."""
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getsampwidth(), file.getnchannels()) != (RATE, 2, 1):
            raise SystemExit(f"{path} is no WAV of {RATE} Hz, 16 bits and one channel; convert it first")
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return (data[: len(data) // HOP * HOP] / 32768).astype(np.float32)


def write(path: Path, sound: np.ndarray) -> None:
    """A WAV file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((sound.clip(-1, 1) * 32767).astype("<i2").tobytes())


def decibels(clean: np.ndarray, sound: np.ndarray) -> float:
    """How far what is not the voice is below it."""
    return float(10 * np.log10((clean**2).mean() / ((sound - clean) ** 2).mean()))


def main() -> None:
    """Make what is not there, take the noise out, and say how well and how fast."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("noisy", type=Path)
    parser.add_argument("clean", type=Path)
    arguments = parser.parse_args()
    made = not arguments.noisy.exists()
    clean, noisy = voices(seed=9999, seconds=10)
    if made:
        write(arguments.noisy, noisy)
    bundle = arguments.clean.with_name("denoiser.bundle")
    if not bundle.exists():
        train(bundle)
    model = load(bundle)
    sound = read(arguments.noisy)
    denoiser = Denoiser(model)
    began = time.perf_counter()
    frames = [denoiser.frame(frame) for frame in sound.reshape(-1, HOP)]
    seconds = time.perf_counter() - began
    write(arguments.clean, np.concatenate(frames))
    given = features(spectra(sound))
    began = time.perf_counter()
    model.session().run(given)  # all frames of a file in one call: the model's own share of the time
    block = time.perf_counter() - began
    length = len(sound) / RATE
    print(f"{length:.1f} s of sound in {seconds:.3f} s: real-time factor {seconds / length:.4f}")
    print(f"{seconds / len(frames) * 1e6:.0f} us a frame; of it the model {block / len(frames) * 1e6:.1f}")
    if made:
        late = np.concatenate(frames)[HOP:]
        print(f"noise: {decibels(clean, sound):.1f} dB below the voice before", end=", ")
        print(f"{decibels(clean[: len(late)], late):.1f} dB after")


if __name__ == "__main__":
    main()
