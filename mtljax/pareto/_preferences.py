"""Vectors on the simplex: a grid of them, random ones, and their rays."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mtljax import _validate


def grid(num_tasks: int, parts: int, *, inset: float = 0.0) -> np.ndarray:
  r"""All preferences whose entries are multiples of one over ``parts``.

  .. math:: \{ p \in \Delta_T : n p_t \in \mathbb{Z} \}, \qquad
     \tbinom{n + T - 1}{T - 1} \text{ of them}

  Args:
    num_tasks: T, at least 2.
    parts: n, at least 1; n + 1 preferences of two tasks.
    inset: how far towards equal shares all of them are drawn, from 0 to below
      1: a preference of 0 leaves a task untrained by most methods.

  Returns:
    A row a preference, shape ``(N, T)``, float64, in lexical order from the one
    that prefers the last task to the one that prefers the first.

  Raises:
    ValueError: an argument is out of range.

  Examples:
    >>> from mtljax import pareto
    >>> pareto.grid(2, 4)[:, 0]
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    >>> pareto.grid(3, 2, inset=0.25).shape
    (6, 3)

  References:
    Das and Dennis, `Normal-Boundary Intersection
    <https://doi.org/10.1137/S1052623496307510>`_, 1998
  """
  num_tasks = _validate.integer('num_tasks', num_tasks, 2)
  parts = _validate.integer('parts', parts, 1)
  _validate.in_range('inset', inset, 0, 1, open_high=True)
  bars = itertools.combinations(range(parts + num_tasks - 1), num_tasks - 1)
  rows = [np.diff([-1, *places, parts + num_tasks - 1]) - 1 for places in bars]
  return (1 - inset) * np.array(rows, float) / parts + inset / num_tasks


def draw(
  key: jax.Array,
  num_tasks: int,
  *,
  concentration: ArrayLike = 1.0,
  shape: tuple[int, ...] = (),
) -> jax.Array:
  r"""Random preferences, :math:`p \sim \text{Dirichlet}(c, \dots, c)`.

  What preference-conditioned networks are trained with, a new one at every
  step. It may be called inside jit.

  Args:
    key: a random key.
    num_tasks: T, at least 2.
    concentration: :math:`c`, above 0; 1: evenly over the simplex, less: nearer
      the corners.
    shape: of the preferences drawn, before the axis of the tasks.

  Returns:
    Shape ``(*shape, T)``, float.

  Raises:
    ValueError: an argument is out of range.

  Examples:
    >>> import jax
    >>> from mtljax import pareto
    >>> pareto.draw(jax.random.key(0), 3, shape=(4,)).shape
    (4, 3)

  References:
    Ruchte and Grabocka, `Scalable Pareto Front Approximation for Deep
    Multi-Objective Learning <https://arxiv.org/abs/2103.13392>`_, 2021
  """
  num_tasks = _validate.integer('num_tasks', num_tasks, 2)
  _validate.in_range('concentration', concentration, 0, open_low=True)
  counts = jnp.full((num_tasks,), concentration, float)
  return jax.random.dirichlet(key, counts, shape)


def ray(preference: ArrayLike, *, eps: float = 1e-6) -> np.ndarray | jax.Array:
  r"""Where the losses are that a preference makes equal, on the simplex.

  .. math:: \lambda_t = \frac{1 / p_t}{\sum_s 1 / p_s}

  so that all :math:`p_t L_t` are equal where the losses are in proportion to
  :math:`\lambda`. What `mtljax.epo` looks for with p, `mtljax.pmgda` looks for
  with its ray.

  Args:
    preference: p, shape ``(..., T)``, at least 0. May be traced.
    eps: the least entry that is divided by.

  Returns:
    The ray, of the same shape; numpy unless a JAX array came in.

  Raises:
    ValueError: an entry is negative or not finite.

  Examples:
    >>> from mtljax import pareto
    >>> pareto.ray([0.25, 0.75])
    array([0.75, 0.25])

  References:
    Mahapatra and Rajan, `Multi-Task Learning with User Preferences
    <https://proceedings.mlr.press/v119/mahapatra20a.html>`_, 2020
  """
  if isinstance(preference, jax.Array):
    inverse = 1 / jnp.maximum(preference, eps)
    return inverse / jnp.sum(inverse, axis=-1, keepdims=True)
  values = np.asarray(preference, float)
  if not np.all(np.isfinite(values)) or np.any(values < 0):
    raise ValueError(
      f'preference={preference!r} must be of finite numbers, each at least 0.'
    )
  inverse = 1 / np.maximum(values, eps)
  return inverse / inverse.sum(axis=-1, keepdims=True)
