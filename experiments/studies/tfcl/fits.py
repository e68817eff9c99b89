"""The ways to fit linear tasks, each at several strengths."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.tfcl.problems import GROUPS
from mtljax.contrib import tfcl

WEAKEST, STRENGTHS = 1e-3, 10
STEPS = 400
RIDGE = 1e-2
#: On the parts of single tasks, by the strength.
PERSONAL = 1.0


def _descend(losses: tfcl.QuadraticLosses, prox: Callable) -> jax.Array:
  """Accelerated proximal gradient from zero; ``prox(weights, step)``."""
  curvature, linear, _ = losses
  bound = jnp.max(jnp.linalg.eigvalsh(curvature))
  start = jnp.zeros(linear.shape[::-1])

  def step(carry, _):
    w, ahead, t = carry
    slope = jnp.einsum('tde,et->dt', curvature, ahead) - linear.T
    new = prox(ahead - slope / bound, 1 / bound)
    later = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
    return (new, new + (t - 1) / later * (new - w), later), None

  carry = start, start, jnp.asarray(1.0)
  return jax.lax.scan(step, carry, None, length=STEPS)[0][0]


def _alone(losses, strength, ridge):
  """Ridge regression, task by task."""
  del ridge
  eye = jnp.eye(losses.linear.shape[1])
  solved = jnp.linalg.solve(
    losses.curvature + strength * eye[None], losses.linear[..., None]
  )
  return solved[..., 0].T


def _pooled(losses, strength, ridge):
  """One vector for all tasks."""
  del ridge
  size = losses.linear.shape[1]
  matrix = jnp.mean(losses.curvature, 0) + strength * jnp.eye(size)
  vector = jnp.linalg.solve(matrix, jnp.mean(losses.linear, 0))
  return jnp.broadcast_to(vector[:, None], losses.linear.shape[::-1])


def _l21(losses, strength, ridge):
  """The same features for all tasks."""

  def prox(w, step):
    norms = jnp.linalg.norm(w, axis=1, keepdims=True)
    kept = jnp.maximum(1 - strength * step / jnp.maximum(norms, 1e-12), 0)
    return kept * w / (1 + ridge * step)

  return _descend(losses, prox)


def _trace(losses, strength, ridge):
  """Weights of low rank."""

  def prox(w, step):
    left, values, right = jnp.linalg.svd(w, full_matrices=False)
    values = jnp.maximum(values - strength * step, 0)
    return (left * values[None]) @ right / (1 + ridge * step)

  return _descend(losses, prox)


def _grouped(losses, strength, ridge):
  return tfcl.fit(
    losses, GROUPS, strength=strength, ridge=ridge, num_steps=STEPS
  ).weights


def _extended(losses, strength, ridge):
  return tfcl.fit(
    losses,
    GROUPS,
    strength=strength,
    ridge=ridge,
    consensus=True,
    personal=PERSONAL * strength,
    num_steps=STEPS,
  ).weights


METHODS: dict[str, Callable] = {
  'alone': _alone,
  'pooled': _pooled,
  'l21': _l21,
  'trace': _trace,
  'tfcl': _grouped,
  'tfcl_extended': _extended,
}


#: Those whose strength is the ridge.
RIDGES = ('alone', 'pooled')


@functools.cache
def _all_choices(method: str) -> Callable:
  fit = METHODS[method]
  return jax.jit(
    lambda losses, choices: jax.lax.map(lambda x: fit(losses, *x), choices)
  )


def strengths(strongest: float) -> tuple[float, ...]:
  """Those that are tried."""
  return tuple(np.geomspace(WEAKEST, strongest, STRENGTHS).tolist())


class Chosen(NamedTuple):
  """What is best on validation.

  Attributes:
    weights: ``(D, T)``.
    strength: of the penalty.
    ridge: beside it.
  """

  weights: np.ndarray
  strength: float
  ridge: float


def best_fit(
  method: str,
  train: tfcl.QuadraticLosses,
  validation: tfcl.QuadraticLosses,
  tried: Sequence[float],
  ridges: Sequence[float] = (RIDGE,),
) -> Chosen:
  """The fit of the strength and ridge that are best on validation.

  ``validation`` are squared losses on other examples of the same tasks. The
  methods of `RIDGES` have no second ridge to choose.
  """
  ridges = ridges[:1] if method in RIDGES else ridges
  choices = list(itertools.product(tried, ridges))
  columns = tuple(jnp.asarray(x) for x in zip(*choices, strict=True))
  found = np.asarray(_all_choices(method)(train, columns))
  a, b, c = (np.asarray(x) for x in validation)
  losses = (
    0.5 * np.einsum('sdt,tde,set->s', found, a, found)
    - np.einsum('td,sdt->s', b, found)
    + c.sum()
  )
  best = int(np.argmin(losses))
  return Chosen(found[best], *choices[best])
