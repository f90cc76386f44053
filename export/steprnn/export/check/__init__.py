"""The whole contract against the Keras model: references, proofs, mistakes, and graphs of other tools."""
