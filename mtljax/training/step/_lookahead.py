"""The hypergradient in a train step, and the batch that it is taken on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from mtljax import _tree
from mtljax._types import Aggregator
from mtljax.gradients import _hypergradient, _pullback
from mtljax.training.step import _absent
from mtljax.training.step._plan import Plan
from mtljax.training.step.state import TrainState

# Folded into the key of the step, for what the validation losses draw.
_VALIDATION = 2**31 - 1


def check(base: Aggregator, layout: Any) -> None:
  """Raises where a method that looks ahead cannot in this step."""
  if 'hypergradient' not in base.needs:
    return
  name = base.info.name
  if base.weighting is None:
    raise TypeError(
      f'{name} under mtl.inject_hyperparams keeps its weights where the train '
      'step cannot look ahead with them; give it numbers.'
    )
  if layout is not None:
    raise ValueError(
      f'layout: {name} takes a step ahead, for which it is not said how that '
      'is spread over devices; leave layout=None.'
    )


def check_batch(plan: Plan, val_batch: Any) -> None:
  """Raises ValueError for a validation batch that is missing, or not read."""
  name = plan.method.info.name
  reads = 'hypergradient' in plan.base.needs
  if reads and val_batch is None:
    raise ValueError(
      f'val_batch=None: {name} learns its weights on a validation batch; call '
      'step(state, batch, val_batch=val_batch).'
    )
  if not reads and val_batch is not None:
    raise ValueError(
      f'val_batch: {name} reads no validation batch; call step(state, batch).'
    )


def of_step(
  plan: Plan,
  state: TrainState,
  pull: Callable[..., _pullback.Pullback],
  batch: Any,
  val_batch: Any,
  key: jax.Array,
  mask: jax.Array | None,
) -> Callable[[Any], jax.Array]:
  """The hypergradient, from the rule's state.

  Args:
    plan: of the step.
    state: before it.
    pull: ``pull(mask, params, args)``, the pullback of a pass.
    batch: the training batch.
    val_batch: the validation batch, which may say what tasks it has.
    key: of the step.
    mask: the tasks present in the training batch.
  """
  val_batch, val_mask = _absent.split_mask(plan, val_batch)
  asked = plan.base.weighting.lookahead
  val_key = jax.random.fold_in(key, _VALIDATION)
  args = plan.loss_arguments(batch, state.model_state, key)
  val_args = plan.loss_arguments(val_batch, state.model_state, val_key)

  def ahead(rule_state):
    rows = _hypergradient.hypergradient_rows(
      lambda params: _pullback.task_losses(
        plan.loss_fn, params, args, has_aux=plan.has_state
      ),
      lambda params: pull(mask, params, args),
      lambda params: pull(val_mask, params, val_args),
      state.params,
      _tree.present(mask, asked.weights(rule_state)),
      _hypergradient.counted_losses(
        plan.method.num_tasks, asked.primary, asked.separate, val_mask
      ),
      asked.inner_learning_rate,
      asked.hypergradient,
    )
    return rows if asked.separate else rows[0]

  return ahead
