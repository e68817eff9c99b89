"""Ascent rules: optax transformations from a gradient to a perturbation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax import _tree, _validate

Ascent = str | Callable[[ArrayLike], optax.GradientTransformation]


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
  _validate.refuse_narrow(rho=rho)
  _validate.in_range('rho', rho, 0)

  def init_fn(params):
    del params
    return optax.EmptyState()

  def update_fn(updates, state, params=None):
    del params
    return with_norm(rho, updates, updates), state

  return optax.GradientTransformation(init_fn, update_fn)


def adaptive_ascent(
  rho: ArrayLike, *, eta: ArrayLike = 0.0
) -> optax.GradientTransformation:
  r"""The perturbation of adaptive SAM: large parameters move further.

  .. math:: \epsilon = \rho \frac{s^2 \odot g}{\lVert s \odot g \rVert_2},
     \quad s = \lvert \theta \rvert + \eta

  The length is measured in units of the parameters, so that scaling two layers
  against each other does not change what is near: the radii are ten or more
  times those of `normalized_ascent`. The norm is over all leaves given.

  Args:
    rho: radius, at least 0.
    eta: added to the size of every parameter, at least 0. At 0 a parameter
      that is 0 does not move: a bias that begins at 0, say.

  Returns:
    The `optax.GradientTransformation`; its ``update`` needs the parameters.

  Raises:
    ValueError: rho or eta is negative, or the parameters are missing.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> ascent = mtl.adaptive_ascent(2.0)
    >>> params = [jnp.array([1.0, 2.0, 0.0])]
    >>> grads = [jnp.array([3.0, 2.0, 7.0])]
    >>> epsilon, _ = ascent.update(grads, ascent.init(params), params)
    >>> print(epsilon[0])
    [1.2 3.2 0. ]

  Edge cases:

  ============================== =====================================
  input                          result
  ============================== =====================================
  all parameters 0 and ``eta`` 0 no perturbation
  gradient zero                  no perturbation
  ============================== =====================================

  References:
    Kwon et al., `ASAM: Adaptive Sharpness-Aware Minimization
    <https://arxiv.org/abs/2102.11600>`_, 2021. Their code adds ``eta=0.01`` to
    weights and does not scale biases; that of F-MTL scales all, with
    ``eta=0`` and ``rho=2``.
  """
  _validate.refuse_narrow(rho=rho, eta=eta)
  _validate.in_range('rho', rho, 0)
  _validate.in_range('eta', eta, 0)

  def init_fn(params):
    del params
    return optax.EmptyState()

  def update_fn(updates, state, params=None):
    if params is None:
      raise ValueError(
        'adaptive_ascent scales by the parameters: pass them, '
        'update(grads, state, params).'
      )

    def scaled(power):
      def leaf(g, p):
        acc = _tree.accumulator(g.dtype)
        size = jnp.abs(p.astype(acc)) + eta
        return size**power * g.astype(acc)

      return jax.tree.map(leaf, updates, params)

    epsilon = with_norm(rho, scaled(2), scaled(1))
    return jax.tree.map(lambda e, g: e.astype(g.dtype), epsilon, updates), state

  return optax.GradientTransformation(init_fn, update_fn)


def with_norm(rho: ArrayLike, direction: Any, measured: Any) -> Any:
  """``rho * direction / norm(measured)``; zeros where the norm is 0."""
  leaves = jax.tree.leaves(measured)
  if not leaves:
    return direction
  norm = _tree.norm(leaves)
  zero = norm == 0
  factor = jnp.where(zero, 0, rho / jnp.where(zero, 1, norm))
  return jax.tree.map(lambda g: _tree.scale_leaf(factor, g), direction)


ASCENTS = {'plain': normalized_ascent, 'adaptive': adaptive_ascent}


def make_rule(ascent: Ascent, rho: ArrayLike) -> optax.GradientTransformation:
  """The ascent rule of a name, or of a function of the radius."""
  if callable(ascent):
    return ascent(rho)
  _validate.one_of('ascent', ascent, ASCENTS)
  return ASCENTS[ascent](rho)


def perturbation(
  ascent: optax.GradientTransformation, grads: Any, params: Any
) -> Any:
  """The perturbation that a stateless ascent rule gives.

  The rule sees complex leaves as real ones in two columns.
  """
  real = jax.tree.map(_tree.as_real, _tree.conjugate(grads))
  params = jax.tree.map(_tree.as_real, params)
  moves, _ = ascent.update(real, ascent.init(params), params)
  return jax.tree.map(_tree.like, moves, grads)
