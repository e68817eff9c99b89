"""What every step of a run does, settled once when the step is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from mtljax._types import Aggregator, Weighting
from mtljax.aggregators import _aggregate
from mtljax.gradients._passes import Passes
from mtljax.gradients._pullback import LossFn
from mtljax.training.step import _begin
from mtljax.training.step._microbatch import Accumulate
from mtljax.training.step.sharding import Layout


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """The checked choices of a train step, which its functions take first.

  Attributes:
    loss_fn: the task losses.
    method: the aggregator as it was given.
    base: the one whose statistics are taken: inside a wrapper that perturbs the
      parameters, and without one that holds the weights, which `due` does.
    optimizer: takes extra arguments.
    route: the route taken, never ``'auto'``.
    passes: how T backward passes run.
    due: ``due(step)``: whether the weights are computed anew; None: always.
    observer: the rule inside `base` that sees the losses after a step, if any.
    cheapest: whether a layer-wise pass may give way to the gradients' products
      where those are less work.
    chunk_size: the tasks in a block of the Gramian; None: all.
    microbatch_size: the examples in a part of the batch; None: all.
    accumulate: what is averaged over these parts.
    has_state: whether the loss takes and returns the model's state.
    layout: how everything is spread over devices; None: not said.
    sample_fn: where every sample is a task, the loss ``(1,)`` of a batch of
      one, of which `loss_fn` is ``(S,)``; else None.
  """

  loss_fn: LossFn
  method: Aggregator
  base: Aggregator
  optimizer: optax.GradientTransformationExtraArgs
  route: str
  passes: Passes
  due: Callable[[jax.Array], jax.Array] | None
  observer: Weighting | None
  cheapest: bool
  chunk_size: int | None
  microbatch_size: int | None
  accumulate: Accumulate
  has_state: bool
  layout: Layout | None
  sample_fn: Callable[..., jax.Array] | None = None

  @property
  def mixtures(self) -> Callable[[Any, jax.Array], jax.Array] | None:
    """Averages of tasks that stand for all of them here; None: each is seen."""
    rule = self.base.weighting
    if rule is None or self.route != 'gramian':
      return None
    whole = (self.chunk_size, self.layout, self.sample_fn)
    return rule.mixtures if all(x is None for x in whole) else None

  def averages(self, what: Accumulate) -> bool:
    """Whether that is averaged over parts of the batch."""
    return self.microbatch_size is not None and self.accumulate == what

  def loss_arguments(self, batch: Any, model_state: Any, key: Any) -> tuple:
    """What the loss is called with, after the parameters."""
    return (batch, model_state, key) if self.has_state else (batch,)

  def base_state(self, method_state: Any) -> Any:
    """The state of `base`, of that of `method`."""
    return (
      method_state if self.method.perturb is None else method_state.inner_state
    )

  def with_base_state(self, method_state: Any, base_state: Any) -> Any:
    """The state of `method` with that of `base` in it."""
    if self.method.perturb is None:
      return base_state
    return method_state._replace(inner_state=base_state)


def as_aggregator(
  method: Aggregator | Weighting,
  loss_fn: LossFn,
  labels: Any,
  num_tasks: int | None,
) -> Aggregator:
  """The method as an aggregator.

  Raises:
    TypeError: it is neither an aggregator nor a weighting.
    ValueError: ``labels`` or ``num_tasks`` are missing or said twice.
  """
  if isinstance(method, Aggregator):
    if labels is not None and labels != method.labels:
      raise ValueError(
        'labels differ from those the aggregator was built with; give them '
        'once, to the aggregator.'
      )
    if num_tasks not in (None, method.num_tasks):
      raise ValueError(
        f'num_tasks={num_tasks}: the method was built for {method.num_tasks} '
        'tasks; leave num_tasks to it.'
      )
    return method
  if isinstance(method, Weighting):
    num_tasks = _begin.num_tasks_of(loss_fn, num_tasks)
    return _aggregate.aggregate(method, num_tasks, labels=labels)
  if isinstance(method, optax.GradientTransformation):
    raise TypeError(
      'method is an optax chain, which hides whether it wants per-task '
      'gradients; pass the aggregator (such as mtl.cagrad(num_tasks=2)) as '
      'method= and what follows it as optimizer=.'
    )
  raise TypeError(
    f'method={method!r} must be an aggregator such as mtl.cagrad(num_tasks=2) '
    'or a weighting such as mtl.weightings.cagrad().'
  )
