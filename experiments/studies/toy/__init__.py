"""Optimizers and methods on the two-task toy problem."""
