"""The commands that need no TensorFlow, one module each."""
