"""Train a character model in Keras and write it as a checkpoint folder; needs `steprnn[train]`."""
