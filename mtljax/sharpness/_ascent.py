"""Ascent rules: optax transformations from a gradient to a perturbation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax import _tree, _validate


def normalized_ascent(rho: ArrayLike) -> optax.GradientTransformation:
  r"""The perturbation of SAM: a step of length rho along the gradient.

  .. math:: \epsilon = \rho \, g / \lVert g \rVert_2

  The norm is over all leaves given. A zero gradient gives no perturbation, and
  the scale of the loss does not matter.

  Args:
    rho: length of the perturbation, in the parameters' units; at least 0.

  Returns:
    The `optax.GradientTransformation`; add its updates to the parameters.

  Raises:
    ValueError: rho is negative.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> ascent = mtl.normalized_ascent(0.1)
    >>> epsilon, _ = ascent.update([jnp.array([3.0, 4.0])], ascent.init(None))
    >>> print(epsilon[0])
    [0.06 0.08]

  References:
    Foret et al., `Sharpness-Aware Minimization for Efficiently Improving
    Generalization <https://arxiv.org/abs/2010.01412>`_, 2021
  """
  _validate.in_range('rho', rho, 0)

  def init_fn(params):
    del params
    return optax.EmptyState()

  def update_fn(updates, state, params=None):
    del params
    leaves = jax.tree.leaves(updates)
    if not leaves:
      return updates, state
    norm = _tree.norm(leaves)
    zero = norm == 0
    factor = jnp.where(zero, 0, rho / jnp.where(zero, 1, norm))
    return jax.tree.map(lambda g: _tree.scale_leaf(factor, g), updates), state

  return optax.GradientTransformation(init_fn, update_fn)


def perturbation(ascent: optax.GradientTransformation, grads, params):
  """The perturbation that a stateless ascent rule gives."""
  return ascent.update(grads, ascent.init(params), params)[0]
