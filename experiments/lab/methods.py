"""Methods by name on the command line, wrapped ones included."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax

import mtljax as mtl
from mtljax import _catalog, _validate
from mtljax._types import AT_FEATURES

WRAPPERS = {'flat': mtl.flat_regions, 'sam': mtl.sam}
ALL = 'all'


@functools.cache
def plain_names() -> tuple[str, ...]:
  """Every method of the library that a step without validation data takes."""
  return tuple(
    name
    for name in _catalog.method_names()
    if 'hypergradient' not in _catalog.example_method(name).needs
  )


@functools.cache
def learner_names() -> tuple[str, ...]:
  """The others: their weights are learned on a second batch a step."""
  return tuple(x for x in _catalog.method_names() if x not in plain_names())


@functools.cache
def wrappable_names() -> tuple[str, ...]:
  """Those that can be made sharpness-aware.

  Neither what reads two batches or features nor what steps can.
  """
  # `mtl.methods` would trace them all, which takes seconds.
  built = {name: _catalog.example_method(name) for name in plain_names()}
  return tuple(
    name
    for name, method in built.items()
    if not (AT_FEATURES | {'cross_gramian'}) & method.needs
    and not method.info.is_optimizer
  )


def method_names() -> list[str]:
  """Every name that `make_method` takes."""
  wrapped = [
    f'{prefix}_{name}' for prefix in WRAPPERS for name in wrappable_names()
  ]
  return [*plain_names(), *learner_names(), *wrapped]


def split_name(name: str) -> tuple[str, str]:
  """One of `WRAPPERS`, or nothing, and the method inside."""
  prefix, _, rest = name.partition('_')
  return (prefix, rest) if prefix in WRAPPERS else ('', name)


def expand(
  names: Sequence[str], *, val_batches: bool = False
) -> tuple[str, ...]:
  """The names in order and once each, ``all`` being every plain method.

  With ``val_batches``, also those that learn on validation batches.
  """
  every = plain_names() + (learner_names() if val_batches else ())
  found = []
  for name in names:
    found += sorted(every) if name == ALL else [name]
  return tuple(dict.fromkeys(found))


def make_method(
  name: str,
  num_tasks: int,
  labels: Any,
  *,
  rho: float,
  gramian_labels: Any = None,
  weights: Sequence[float] | jax.Array = (),
  scores: Sequence[float] = (),
  optimizer: Callable[..., optax.GradientTransformation] = optax.adam,
  learning_rate: optax.ScalarOrSchedule = 1e-3,
  options: Mapping[str, Any] | None = None,
) -> mtl.Aggregator:
  """Builds a method with its paper's defaults.

  Args:
    name: a method (``'cagrad'``), task-based flat regions around one
      (``'flat_cagrad'``), or SAM on the summed loss around one
      (``'sam_cagrad'``).
    num_tasks: T.
    labels: see `mtljax.label_params`.
    rho: radius of the sharpness-aware forms.
    gramian_labels: see `mtljax.match_params`; methods that take no Gramian, but
      the gradients of all shared parameters, have no use for it.
    weights: those of ``'fixed'``, one a task; none: ones.
    scores: of ``'pivrg'``, the loss that each task reaches alone; none: ones.
    optimizer: from a learning rate to the optimizer of which
      ``'per_task_optimizer'`` has one a task.
    learning_rate: of ``'per_task_optimizer'`` and ``'adatask'``, a number or a
      schedule.
    options: of the method, or of the one inside, over its defaults.

  Returns:
    The aggregator. If its ``info.is_optimizer``, nothing comes after it.

  Raises:
    ValueError: the name is not known; the message lists those that are.
  """
  check_names([name], val_batches=True)
  prefix, plain = split_name(name)
  ones = (1.0,) * num_tasks
  given: dict[str, Any] = {
    'fixed': {'weights': weights if len(weights) else ones},
    'pivrg': {'scores': tuple(scores) or ones},
    'krum': {'num_byzantine': 0},
    # As many as can be: the median.
    'trimmed_mean': {'trim': (num_tasks - 1) // 2},
    'adatask': {'learning_rate': learning_rate},
    'per_task_optimizer': {'tx': optimizer(learning_rate)},
  }.get(plain, {})
  factory = mtl.get_method(plain)
  known = inspect.signature(factory).parameters.values()
  if gramian_labels is not None and any(
    x.name == 'gramian_labels' or x.kind is x.VAR_KEYWORD for x in known
  ):
    given['gramian_labels'] = gramian_labels
  given |= options or {}
  inner = factory(num_tasks=num_tasks, labels=labels, **given)
  if prefix:
    radius = {'flat': 'rho_shared', 'sam': 'rho'}[prefix]
    return WRAPPERS[prefix](inner, **{radius: rho})
  return inner


def check_names(names: Sequence[str], *, val_batches: bool = False) -> None:
  """Raises ValueError for the first name that is not known.

  Without ``val_batches``, also for one that learns on validation batches.
  """
  for name in names:
    if name in learner_names() and not val_batches:
      raise ValueError(
        f'--methods={name} learns its weights on validation batches, which '
        'the steps of this study do not get; compare it by '
        'experiments.compare, or use mtljax.training.make_train_step.'
      )
    _validate.one_of('--methods', name, method_names())
