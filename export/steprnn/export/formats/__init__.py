"""One writer a format: `METHODS`, variant to how weights are kept, and `write(step, path, variant)`."""
