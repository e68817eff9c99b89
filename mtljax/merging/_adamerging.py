"""AdaMerging: coefficients of task vectors, learned without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax import _labels, _validate
from mtljax.merging import _arithmetic, _ties


class AdaMerged(NamedTuple):
  """What `adamerging` returns.

  Attributes:
    params: like ``base``.
    coefficients: of the task vectors, ``(T,)``, or with ``by_leaf`` a tree like
      ``base`` of them; those of leaves that a task owns have no effect.
    losses: what was descended on, a number a batch.
  """

  params: Any
  coefficients: Any
  losses: jax.Array


def entropy(logits: jax.Array) -> jax.Array:
  """The mean entropy of predicted classes, in nats.

  Args:
    logits: shape ``(..., classes)``.

  Returns:
    Shape ``()``; NaN for no example.

  Examples:
    >>> import jax.numpy as jnp
    >>> from mtljax import merging
    >>> print(merging.entropy(jnp.zeros((3, 2))).round(4))
    0.6931
  """
  log_shares = jax.nn.log_softmax(logits)
  return -jnp.mean(jnp.sum(jnp.exp(log_shares) * log_shares, axis=-1))


def adamerging(
  base: Any,
  models: Sequence[Any],
  loss_fn: Callable[[Any, Any], jax.Array],
  batches: Iterable[Any],
  *,
  by_leaf: bool = True,
  initial: ArrayLike = 0.3,
  density: float | None = None,
  optimizer: optax.GradientTransformation | None = None,
  labels: _labels.Labels | None = None,
) -> AdaMerged:
  r"""Merges networks by coefficients that make the result sure of itself.

  .. math:: \theta = \theta_0 + \sum_t \lambda_t (\theta_t - \theta_0)

  The :math:`\lambda_t`, one a task or one a task and leaf, descend on
  ``loss_fn`` over inputs without labels: the sum over the tasks of the mean
  `entropy` of what the network predicts. They are kept in [0, 1].

  Args:
    base: the parameters that all began at, a tree of arrays.
    models: a tree like it for each of T tasks, trained on that task alone.
    loss_fn: ``loss_fn(params, batch)``, a scalar.
    batches: what it is called with, a step each.
    by_leaf: coefficients for each leaf (the authors': for each layer) in place
      of one a task.
    initial: where they begin, a number or one a task, ``(T,)``.
    density: trims the vectors as TIES does first (AdaMerging++, without its
      election of signs); None: not.
    optimizer: of the coefficients; None: Adam at 1e-3, the authors' choice.
    labels: see `task_vectors`; what a task owns comes from its own model.

  Returns:
    An `AdaMerged`.

  Raises:
    ValueError: as `task_vectors`; there is no batch; or ``initial`` has
      another shape.
    TypeError: as `task_vectors`.

  Examples:
    >>> import jax.numpy as jnp, optax
    >>> from mtljax import merging
    >>> models = [jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])]
    >>> distance = lambda w, target: jnp.sum((w - target) ** 2)
    >>> found = merging.adamerging(
    ...   jnp.zeros(2), models, distance, [jnp.array([0.8, 0.2])] * 100,
    ...   by_leaf=False, optimizer=optax.adam(0.05))
    >>> print(', '.join(f'{x:.2f}' for x in found.coefficients))
    0.80, 0.20

  References:
    Yang et al., `AdaMerging: Adaptive Model Merging for Multi-Task Learning
    <https://arxiv.org/abs/2310.02575>`_, 2024
  """
  _validate.flag('by_leaf', by_leaf)
  vectors = _arithmetic.task_vectors(base, models, labels=labels)
  if density is not None:
    vectors = _ties.trim_vectors(vectors, density, labels=labels)
  one = _arithmetic.per_task('initial', initial, len(models))
  count = len(jax.tree.leaves(base)) if by_leaf else 1
  optimizer = optax.adam(1e-3) if optimizer is None else optimizer
  merge = lambda weights: _arithmetic.add_vectors(
    base, vectors, weights if by_leaf else weights[0], labels
  )

  @jax.jit
  def step(weights, state, batch):
    loss_of = lambda x: loss_fn(merge(x), batch)
    loss, grads = jax.value_and_grad(loss_of)(weights)
    updates, state = optimizer.update(grads, state, weights)
    weights = optax.apply_updates(weights, updates)
    return jax.tree.map(lambda x: jnp.clip(x, 0, 1), weights), state, loss

  weights = [one] * count
  state = optimizer.init(weights)
  losses = []
  for batch in batches:
    weights, state, loss = step(weights, state, batch)
    losses.append(loss)
  if not losses:
    raise ValueError('batches is empty; the coefficients need one a step.')
  found = weights[0]
  if by_leaf:
    found = jax.tree.unflatten(jax.tree.structure(base), weights)
  return AdaMerged(merge(weights), found, jnp.stack(losses))
