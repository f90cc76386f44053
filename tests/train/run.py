"""A run in a process of its own, to be killed: `run.py FOLDER CORPUS SECONDS_BETWEEN_BACKUPS`."""

import sys

from steprnn.train.fit import train
from steprnn.train.settings import Settings

if __name__ == "__main__":
    folder, corpus, every = sys.argv[1:]
    # Dropout has a random state of its own that must go on too; patience counts over the kills.
    settings = Settings(
        units=24, batch=4, window=8, epochs=40, dropout=0.1, holdout=0.2, patience=40, learning_rate=1e-2
    )
    told = {"prompts": ["分"], "sample_every": 1}  # so that whoever kills it knows how far it has come
    train(folder, source=corpus, settings=settings, backup_every=float(every), verbose=0, **told)
