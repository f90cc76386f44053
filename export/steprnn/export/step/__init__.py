"""From a Keras model to its single step: read the model's graph, find what it remembers, derive the step."""
