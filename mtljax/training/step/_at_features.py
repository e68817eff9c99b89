"""What a method reads at the features in a train step, beside the losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from mtljax._types import Aggregator, Weighting
from mtljax.aggregators import _alignment
from mtljax.gradients import alignment_fn
from mtljax.gradients._pullback import Pullback
from mtljax.training.step._plan import Plan

Aligned = Callable[[Any, jax.Array], Any]


def feature_norms(plan: Plan, pullback: Pullback) -> jax.Array | None:
  """The norms that the method reads, or None."""
  if 'feature_norms' not in plan.base.needs:
    return None
  rule = _rule(plan.base)
  assert rule is not None and pullback.feature_norms is not None
  return pullback.feature_norms(rule.chunks)


def _rule(method: Aggregator | None) -> Weighting | None:
  """The rule of the method, or of the one inside."""
  while method is not None and method.weighting is None:
    method = method.inner
  return None if method is None else method.weighting


def pulls(plan: Plan, params: Any, args: Any) -> Callable[..., Any] | None:
  """What `mtljax.alignment_fn` gives in this step; None if it is not read."""
  if 'alignment' not in plan.base.needs:
    return None
  return alignment_fn(
    plan.loss_fn,
    params,
    *args,
    labels=plan.base.labels,
    has_aux=plan.has_state,
  )


def aligned(
  plan: Plan, pullback: Pullback, pulls: Callable[..., Any] | None
) -> Aligned:
  """From an update and its weights to one whose heads are moved too."""
  if pulls is None:
    return lambda update, weights: update

  def moved(update, weights):
    leaves = _alignment.moved(
      plan.base.weighting.alignment,
      pullback.split.labels,
      jax.tree.leaves(update),
      jax.tree.leaves(pulls(weights)),
      plan.base.num_tasks,
    )
    return jax.tree.unflatten(pullback.split.treedef, leaves)

  return moved


def check(base: Aggregator, layout: Any) -> None:
  """Raises where the step cannot give a method what it reads at features."""
  if 'feature_norms' in base.needs and _rule(base) is None:
    raise TypeError(
      f'{base.info.name}: under another update it is not known into how many '
      'chunks the batch is to be cut; give the step the method itself.'
    )
  if 'alignment' in base.needs and layout is not None:
    raise ValueError(
      f'layout: {base.info.name} takes second derivatives of the heads, for '
      'which it is not said how they are spread over devices; leave '
      'layout=None.'
    )
