"""Measuring a bundle on the machine it is to run on; the command `steprnn bench` prints it."""
