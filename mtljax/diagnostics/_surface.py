"""Losses along one or two directions through the parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _labels, _tree, _validate
from mtljax.diagnostics._sharpness import normal_like


def filter_normalized(
  key: jax.Array, params: Any, *, labels: _labels.Labels | None = None
) -> Any:
  r"""A random direction whose filters are as long as the parameters' own.

  .. math::
     d_{f} \leftarrow \frac{d_{f}}{\lVert d_{f} \rVert} \lVert \theta_{f} \rVert

  for the filters f of every leaf, d Gaussian. Scaling a filter then scales the
  direction with it, so that surfaces of different networks can be compared. A
  filter is what makes one output: all of a leaf but its last axis, which in
  flax is the output of a convolution or a dense layer. Leaves with fewer than
  two axes (biases, the scales of normalisation) get zeros, as in the authors'
  code.

  ============================ ===========================================
  input                        result
  ============================ ===========================================
  a filter of zeros            zeros
  a leaf with under two axes   zeros
  a stacked leaf (see labels)  its axis 0 is the task: the same for each
                               task's part
  ============================ ===========================================

  Args:
    key: random key.
    params: the parameters.
    labels: see `mtljax.label_params`; read for stacked leaves only.

  Returns:
    A tree like ``params``.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mtljax.diagnostics import filter_normalized
    >>> params = {'kernel': jnp.array([[3.0, 0.0], [4.0, 2.0]]),
    ...           'bias': jnp.ones(2)}
    >>> got = filter_normalized(jax.random.key(0), params)
    >>> print(jnp.linalg.norm(got['kernel'], axis=0).round(3), got['bias'])
    [5. 2.] [0. 0.]

  References:
    Li et al., `Visualizing the Loss Landscape of Neural Nets
    <https://arxiv.org/abs/1712.09913>`_, 2018, section 4.
  """
  leaves, treedef = jax.tree.flatten(params)
  flat = _labels.flatten_labels(labels, params)
  drawn = jax.tree.leaves(normal_like(key, params))

  def one(d, p, label):
    first = 1 if label == _labels.STACKED else 0
    if p.ndim - first < 2:
      return jnp.zeros_like(p)
    axes = tuple(range(first, p.ndim - 1))
    own, wanted = _lengths(d, axes), _lengths(p, axes)
    factor = wanted / jnp.where(own == 0, 1, own)
    return (d.astype(factor.dtype) * factor).astype(p.dtype)

  return jax.tree.unflatten(
    treedef,
    [one(d, p, x) for d, p, x in zip(drawn, leaves, flat, strict=True)],
  )


def loss_surface(
  loss_fn: Callable[..., jax.Array],
  params: Any,
  directions: Sequence[Any],
  coordinates: ArrayLike | Sequence[ArrayLike],
  *args: Any,
  batch_size: int | None = None,
) -> jax.Array:
  r"""The loss on a line or a plane through the parameters.

  .. math:: f(a) = L(\theta + a\, d_1), \qquad
     f(a, b) = L(\theta + a\, d_1 + b\, d_2)

  Costs a forward pass a point. Call it inside ``jax.jit``. Batch statistics
  are not recomputed: a network with them is drawn with those it is given.

  Args:
    loss_fn: ``loss_fn(params, *args)``, a scalar or losses ``(T,)``.
    params: the centre.
    directions: one or two trees like ``params``: `filter_normalized`
      directions, eigenvectors of the Hessian, differences of two solutions.
    coordinates: a vector for each direction, or one for all; 0 is the centre.
    *args: the other arguments of ``loss_fn``.
    batch_size: how many points are evaluated together, by ``vmap``; None: one
      after the other.

  Returns:
    The losses, shape ``(A,)`` or ``(A, B)`` followed by the loss's own.

  Raises:
    ValueError: there are no directions or more than two, or the coordinates do
      not fit them.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.diagnostics import loss_surface
    >>> def task_losses(w):
    ...   return jnp.stack([w[0] ** 2, w[1] ** 2])
    >>> axes = [jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])]
    >>> got = loss_surface(task_losses, jnp.zeros(2), axes, jnp.arange(3.0))
    >>> print(got.shape, got[1, 2])
    (3, 3, 2) [1. 4.]

  References:
    Goodfellow, Vinyals and Saxe, `Qualitatively Characterizing Neural Network
    Optimization Problems <https://arxiv.org/abs/1412.6544>`_, 2015; Li et al.,
    `Visualizing the Loss Landscape of Neural Nets
    <https://arxiv.org/abs/1712.09913>`_, 2018.
  """
  if not isinstance(directions, Sequence) or len(directions) not in (1, 2):
    raise ValueError(
      'directions must be a list of one or two trees like params, got '
      f'{jax.tree.map(jnp.shape, directions)}.'
    )
  structure = jax.tree.structure(params)
  for i, d in enumerate(directions):
    if jax.tree.structure(d) != structure:
      raise ValueError(
        f'directions[{i}] must have the structure of params, {structure}, got '
        f'{jax.tree.structure(d)}.'
      )
  _validate.in_range('batch_size', batch_size, 1, optional=True)
  if isinstance(coordinates, Sequence) and not jnp.isscalar(coordinates[0]):
    axes = [jnp.asarray(c) for c in coordinates]
  else:
    axes = [jnp.asarray(coordinates)] * len(directions)
  if len(axes) != len(directions) or any(c.ndim != 1 for c in axes):
    raise ValueError(
      f'coordinates must be a vector for each of the {len(directions)} '
      f'directions, or one for all; got shapes {[c.shape for c in axes]}.'
    )
  grid = jnp.stack(
    [c.reshape(-1) for c in jnp.meshgrid(*axes, indexing='ij')], axis=-1
  )

  def at(point):
    def moved(p, *ds):
      acc = _tree.accumulator(p.dtype)
      step = sum(point[i].astype(acc) * d.astype(acc) for i, d in enumerate(ds))
      return (p.astype(acc) + step).astype(p.dtype)

    return loss_fn(jax.tree.map(moved, params, *directions), *args)

  losses = jax.lax.map(at, grid, batch_size=batch_size)
  return losses.reshape(*(c.size for c in axes), *losses.shape[1:])


def _lengths(leaf: jax.Array, axes: tuple[int, ...]) -> jax.Array:
  wide = leaf.astype(_tree.accumulator(leaf.dtype))
  square = jnp.real(wide * jnp.conj(wide))
  return jnp.sqrt(jnp.sum(square, axis=axes, keepdims=True))
