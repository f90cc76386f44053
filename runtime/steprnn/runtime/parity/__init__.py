"""The definition of "equal", without TensorFlow: how far a step is from its reference."""
