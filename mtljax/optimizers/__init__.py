"""Optimizers that multi-task papers compare with, as optax transformations."""

from mtljax.optimizers._per_task import adatask as adatask
from mtljax.optimizers._per_task import per_task_optimizer as per_task_optimizer
from mtljax.optimizers._signsgd import signsgd as signsgd

__all__ = ['adatask', 'per_task_optimizer', 'signsgd']
