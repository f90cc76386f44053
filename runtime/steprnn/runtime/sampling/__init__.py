"""How a token is chosen: docs/sampling.md to the letter."""
