"""How much an update depends on the scale of each task's loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax import _labels, _tree, _validate


class ScaleSensitivity(NamedTuple):
  """What `scale_sensitivity` returns; entry t is for task t's loss scaled.

  Attributes:
    shared: relative change of the accumulated update of the shared
      parameters, shape ``(T,)``; NaN if there are none.
    own: of task t's own parameters; NaN if it has none.
  """

  shared: jax.Array
  own: jax.Array


def scale_sensitivity(
  tx: optax.GradientTransformation,
  grads: Any,
  *,
  losses: ArrayLike | None = None,
  params: Any | None = None,
  labels: _labels.Labels | None = None,
  scale: ArrayLike = 10.0,
) -> ScaleSensitivity:
  r"""By how much the update changes when one task's loss is scaled.

  Task t's loss, and with it its gradients, is multiplied by a constant
  :math:`\alpha` in all S steps; the others are left alone. With
  :math:`\Delta` the sum of the S updates of the chain,

  .. math::
     s_t = \frac{\lVert \Delta(\alpha_t = \alpha) - \Delta(\alpha = 1) \rVert}
     {\lVert \Delta(\alpha = 1) \rVert}

  apart for the shared parameters and for task t's own. 0 is invariance; for
  SGD on the sum of losses own is exactly :math:`|\alpha - 1|`, and shared is
  that times the task's part of the update. The gradients are given and do not
  answer to the updates: this looks at the chain alone, along one trajectory.

  What is known: SGD and momentum are not invariant. Adam on the summed loss is
  on the tasks' own parameters, and only if :math:`\epsilon` is 0 (or far below
  the gradients), the scale is constant, and there is neither coupled weight
  decay nor clipping before it; on shared parameters it is not. UW-O makes the
  whole update invariant under any optimizer.

  ============================ =============================================
  input                        result
  ============================ =============================================
  no update, scaled or not     0
  an update only when scaled   infinite
  non-finite gradients         NaN
  ============================ =============================================

  Costs T + 1 runs of the chain, one after the other, and T + 1 copies of the
  parameters. Call it inside ``jax.jit``.

  Args:
    tx: method and optimizer, such as ``optax.chain(mtl.sum_losses(2),
      optax.adam(1e-3))``: per-task gradients in, updates out.
    grads: per-task gradients of S steps: those of
      `mtljax.value_and_task_grads`, stacked, so that shared leaves have shape
      ``(S, T, *p.shape)``.
    losses: of the same steps, shape ``(S, T)``, if the method reads them.
    params: where the run starts, for chains that read parameters; None: zeros.
    labels: those of the method, see `mtljax.label_params`; None: all
      parameters are shared.
    scale: :math:`\alpha`, positive.

  Returns:
    The `ScaleSensitivity`.

  Raises:
    ValueError: the scale is not positive, or the shapes do not fit.

  Example:
    >>> import jax.numpy as jnp, mtljax as mtl, optax
    >>> from mtljax.diagnostics import scale_sensitivity
    >>> labels = {'trunk': 'shared', 'heads': [0, 1]}
    >>> grads = {'trunk': jnp.array([[[1.0], [3.0]]]),
    ...          'heads': [jnp.ones((1, 2)), jnp.ones((1, 2))]}
    >>> method = mtl.sum_losses(num_tasks=2, labels=labels)
    >>> for optimizer in optax.sgd(0.1), optax.adam(0.1, eps=0.0):
    ...   got = scale_sensitivity(
    ...     optax.chain(method, optimizer), grads, labels=labels, scale=2.0
    ...   )
    ...   print(got.shared.round(4), got.own.round(4))
    [0.25 0.75] [1. 1.]
    [0. 0.] [0. 0.]

    In one step Adam takes only the sign, which the two shared gradients have
    in common; over several steps, or where they conflict, shared is not 0.

  References:
    Elich et al., `Examining Common Paradigms in Multi-Task Learning
    <https://arxiv.org/abs/2311.04698>`_, 2024, appendix A1. Its claim that
    Adam without memory is invariant on shared parameters too does not hold:
    the sign of the summed gradient depends on the scales.
  """
  _validate.in_range('scale', scale, 0, open_low=True)
  tx = optax.with_extra_args_support(tx)
  leaves, treedef = jax.tree.flatten(grads)
  num_tasks, flat = _read(grads, leaves, labels, losses)
  if params is None:
    params = jax.tree.unflatten(
      treedef,
      [
        jnp.zeros(x.shape[2 if label == _labels.SHARED else 1 :], x.dtype)
        for x, label in zip(leaves, flat, strict=True)
      ],
    )

  def run(alphas):
    def step(carry, xs):
      p, state = carry
      g, step_losses = xs
      scaled = [
        _tree.scale_leaf(alphas[x] if isinstance(x, int) else alphas, leaf)
        for leaf, x in zip(jax.tree.leaves(g), flat, strict=True)
      ]
      extra = {} if losses is None else {'losses': alphas * step_losses}
      updates, state = tx.update(
        jax.tree.unflatten(treedef, scaled), state, p, **extra
      )
      return (optax.apply_updates(p, updates), state), updates

    xs = grads, None if losses is None else jnp.asarray(losses)
    _, updates = jax.lax.scan(step, (params, tx.init(params)), xs)
    return [jnp.sum(u, axis=0) for u in jax.tree.leaves(updates)]

  # The plain run goes through the same program, so that equal is bitwise equal.
  scaled = jnp.where(jnp.eye(num_tasks, dtype=bool), scale, 1.0)
  alphas = jnp.concatenate([jnp.ones((1, num_tasks)), scaled])
  totals = jax.lax.map(run, alphas)
  shared, own = [], []
  for t in range(num_tasks):
    parts = [], []
    for total, label in zip(totals, flat, strict=True):
      pair = total[0], total[t + 1]
      if label == _labels.SHARED:
        parts[0].append(pair)
      elif label == _labels.STACKED:
        parts[1].append((pair[0][t], pair[1][t]))
      elif label == t:
        parts[1].append(pair)
    shared.append(_change(parts[0]))
    own.append(_change(parts[1]))
  return ScaleSensitivity(jnp.stack(shared), jnp.stack(own))


def _read(grads, leaves, labels, losses):
  """The number of tasks and the labels, from leaves with a step axis."""
  flat = _labels.flatten_labels(labels, grads)
  counts, enough = set(), True
  for x, label in zip(leaves, flat, strict=True):
    rows = label in (_labels.SHARED, _labels.STACKED)
    enough &= x.ndim > (1 if rows else 0)
    if rows:
      counts.add(x.shape[1] if x.ndim > 1 else 0)
  if losses is not None:
    counts.add(jnp.shape(losses)[-1])
  if not counts:
    counts = {max(flat) + 1}
  if len(counts) != 1 or not enough:
    raise ValueError(
      'grads must have a step axis and then, on shared leaves, the task axis; '
      f'found {sorted(counts)} tasks in shapes {[x.shape for x in leaves]}.'
    )
  num_tasks = counts.pop()
  return num_tasks, _labels.flatten_labels(labels, grads, num_tasks)


def _change(pairs) -> jax.Array:
  """||y - x|| / ||x|| over pairs of leaves."""
  if not pairs:
    return jnp.array(jnp.nan)
  change = _tree.norm([y - x for x, y in pairs])
  size = _tree.norm([x for x, _ in pairs])
  return jnp.where(change == 0, 0, change / size)
