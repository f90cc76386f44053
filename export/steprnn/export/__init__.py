"""Turn a Keras model into a verified single-step bundle; needs `steprnn[export]`."""
