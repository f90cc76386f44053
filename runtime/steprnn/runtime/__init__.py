"""Run a single-step recurrent model without TensorFlow."""
