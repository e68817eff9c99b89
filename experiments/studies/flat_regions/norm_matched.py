"""A control: one method's direction with another's length."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import mtljax as mtl
from mtljax import _labels, _tree


class NormMatchedState(NamedTuple):
  """State of `norm_matched`."""

  loss_state: Any  # the method's; what `mtljax.get_weights` reads
  reference_state: Any


def norm_matched(
  method: mtl.Aggregator, reference: mtl.Aggregator
) -> mtl.Aggregator:
  r"""The method's update, its shared part as long as the reference's.

  .. math:: d_{sh} \leftarrow
     d_{sh} \, \lVert r_{sh} \rVert / \lVert d_{sh} \rVert

  with r the reference's update from the same gradients at the same parameters.
  Heads are the method's own. A zero update stays zero. Under Adam a constant
  factor would change nothing; this one changes from step to step.

  Args:
    method: whose direction is taken.
    reference: whose length is taken, built with the same labels: the
      `mtljax.flat_regions` form of the method, say.

  Returns:
    The `mtljax.Aggregator`; it costs both.
  """
  num_tasks, labels = method.num_tasks, method.labels

  def init_fn(params):
    return NormMatchedState(method.init(params), reference.init(params))

  def update_fn(updates, state, params=None, **extra_args):
    own, loss_state = method.update(
      updates, state.loss_state, params, **extra_args
    )
    other, reference_state = reference.update(
      updates, state.reference_state, params, **extra_args
    )
    flat = _labels.flatten_labels(labels, updates, num_tasks)
    leaves, treedef = jax.tree.flatten(own)

    def length(leaves):
      pairs = zip(leaves, flat, strict=True)
      return _tree.norm([x for x, label in pairs if label == _labels.SHARED])

    norm = length(leaves)
    wanted = length(jax.tree.leaves(other))
    factor = jnp.where(norm == 0, 0, wanted / jnp.where(norm == 0, 1, norm))
    leaves = [
      _tree.scale_leaf(factor, x) if label == _labels.SHARED else x
      for x, label in zip(leaves, flat, strict=True)
    ]
    state = NormMatchedState(loss_state, reference_state)
    return jax.tree.unflatten(treedef, leaves), state

  return mtl.Aggregator(
    init_fn,
    update_fn,
    num_tasks=num_tasks,
    needs=method.needs | reference.needs | {'gradients', 'task_grads'},
    info=method.info,
    labels=labels,
    inner=method,
  )
