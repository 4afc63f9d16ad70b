"""Decide: what is run, in which order, and what follows from it."""
