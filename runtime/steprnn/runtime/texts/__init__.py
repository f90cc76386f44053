"""Texts read, written and scored: one or many, in turn or in batches."""
