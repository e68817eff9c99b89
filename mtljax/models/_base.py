"""A trunk shared by all tasks, one head per task, and who owns what."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.errors
import flax.linen as nn
import jax

Params = dict[str, Any]
ModelState = dict[str, Any]


def _shapes(x: Any) -> Any:
  """What JAX makes of arrays: int64 is int32 where float64 is off."""
  return jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(
      a.shape, jax.dtypes.canonicalize_dtype(a.dtype)
    ),
    x,
  )


def _init(module: nn.Module, key: jax.Array, x: Any) -> dict[str, Any]:
  """Variables from the shape of x alone: no forward pass is computed."""
  return dict(module.lazy_init({'params': key}, _shapes(x), train=False))


def _apply(
  module: nn.Module, name: str, variables: Mapping[str, Any], x, **kwargs
) -> Any:
  try:
    return module.apply(variables, x, **kwargs)
  except flax.errors.InvalidRngError as e:
    raise ValueError(
      f'key=None, but {name} draws random numbers when train=True: pass a key.'
    ) from e


@dataclasses.dataclass(frozen=True)
class MultiTaskModel:
  """A trunk that all tasks share and one head per task.

  The two halves are applied apart, which is what lets every head be evaluated
  and differentiated once: ``features = trunk(x)``, then
  ``logits_t = head_t(features)``.

  Parameters are ``{'trunk': ..., 'heads_0': ..., 'heads_1': ...}``. The model
  state holds what the trunk changes in a forward pass (``'batch_stats'``), or
  nothing; heads have no state.

  Args:
    trunk: module called as ``trunk(x, train=...)``.
    heads: modules called as ``head(features, train=...)``, one per task.
    tasks: the names of the tasks, in the order of the heads.

  Raises:
    ValueError: if there is no task, a name occurs twice, or the numbers of
      heads and names differ.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mtljax import models
    >>> model = models.multi_lenet(tasks=('left', 'right'))
    >>> x = jnp.zeros((4, 36, 36, 1))
    >>> params, model_state = model.init(jax.random.key(0), x)
    >>> sorted(params)
    ['heads_0', 'heads_1', 'trunk']
    >>> features, model_state = model.apply_trunk(
    ...   params, model_state, x, train=True
    ... )
    >>> model.apply_head(1, params, features).shape
    (4, 10)
    >>> model.shared, model.task_patterns
    ('trunk/.*', ['heads_0/.*', 'heads_1/.*'])
  """

  trunk: nn.Module
  heads: tuple[nn.Module, ...]
  tasks: tuple[str, ...]

  def __post_init__(self):
    object.__setattr__(self, 'heads', tuple(self.heads))
    object.__setattr__(self, 'tasks', tuple(self.tasks))
    if not self.tasks:
      raise ValueError('tasks=() is empty: name at least one task.')
    if len(set(self.tasks)) != len(self.tasks):
      raise ValueError(f'tasks={self.tasks!r} repeats a name: rename one.')
    if len(self.heads) != len(self.tasks):
      raise ValueError(
        f'heads has {len(self.heads)} modules for {len(self.tasks)} tasks: '
        'pass one head per task.'
      )

  @property
  def num_tasks(self) -> int:
    """The number of tasks T."""
    return len(self.tasks)

  @property
  def shared(self) -> str:
    """The regular expression of the shared parameters' paths."""
    return r'trunk/.*'

  @property
  def task_patterns(self) -> list[str]:
    """One regular expression per task, matching its own parameters' paths."""
    return [rf'heads_{t}/.*' for t in range(self.num_tasks)]

  def init(self, key: jax.Array, x: Any) -> tuple[Params, ModelState]:
    """Draws the parameters; only the shape and dtype of ``x`` are used.

    Args:
      key: a random key.
      x: an example batch, or its `jax.ShapeDtypeStruct`; a tree of them where
        the trunk takes one.

    Returns:
      The parameters and the model state.

    Raises:
      ValueError: if a head has variables other than parameters.
    """
    trunk_key, *head_keys = jax.random.split(key, self.num_tasks + 1)
    model_state = _init(self.trunk, trunk_key, x)
    params = {'trunk': model_state.pop('params', {})}
    features = jax.eval_shape(
      lambda v, x: self.trunk.apply(v, x, train=False),
      {'params': params['trunk'], **model_state},
      _shapes(x),
    )
    for t, (head, head_key) in enumerate(
      zip(self.heads, head_keys, strict=True)
    ):
      variables = _init(head, head_key, features)
      params[f'heads_{t}'] = variables.pop('params', {})
      if variables:
        raise ValueError(
          f'heads[{t}] has state {sorted(variables)}: only the trunk may keep '
          'state; use a head without batch statistics.'
        )
    return params, model_state

  def apply_trunk(
    self,
    params: Params,
    model_state: ModelState,
    x: Any,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[jax.Array, ModelState]:
    """Computes the shared features.

    Args:
      params: the parameters; only ``params['trunk']`` is read.
      model_state: the state from `init` or the last call.
      x: a batch, shape ``(B, ...)``, or a tree where the trunk takes one.
      train: use and update batch statistics, apply dropout.
      key: random key, needed where the trunk has dropout and ``train`` is set.
        The same key may be given to `apply_head`.

    Returns:
      The features and the new model state (the same one if not ``train``).

    Raises:
      ValueError: if a key is needed and missing.
    """
    variables = {'params': params['trunk'], **model_state}
    rngs = {} if key is None else {'dropout': jax.random.fold_in(key, 0)}
    kwargs = {'train': train, 'rngs': rngs}
    if not (train and model_state):
      features = _apply(self.trunk, 'trunk', variables, x, **kwargs)
      return features, model_state
    features, updated = _apply(
      self.trunk, 'trunk', variables, x, mutable=list(model_state), **kwargs
    )
    return features, dict(updated)

  def apply_head(
    self,
    t: int,
    params: Params,
    features: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Computes the output of task ``t`` from the shared features.

    Args:
      t: the task's index, a Python int.
      params: the parameters; only those of head ``t`` are read.
      features: the output of `apply_trunk`.
      train: apply dropout.
      key: random key, needed where the head has dropout and ``train`` is set.

    Returns:
      The head's output, such as logits ``(B, classes)``.

    Raises:
      ValueError: if a key is needed and missing.
    """
    rngs = {} if key is None else {'dropout': jax.random.fold_in(key, t + 1)}
    variables = {'params': params[f'heads_{t}']}
    return _apply(
      self.heads[t], f'heads[{t}]', variables, features, train=train, rngs=rngs
    )

  def apply(
    self, params: Params, model_state: ModelState, x: Any
  ) -> list[jax.Array]:
    """Computes the output of every task, in evaluation mode."""
    features, _ = self.apply_trunk(params, model_state, x, train=False)
    return [self.apply_head(t, params, features) for t in range(self.num_tasks)]


def with_same_heads(
  trunk: nn.Module, head: nn.Module, tasks: Sequence[str]
) -> MultiTaskModel:
  """One head of the same form, with its own parameters, for every task."""
  if isinstance(tasks, str):
    raise ValueError(f'tasks={tasks!r} is a string: pass a tuple of names.')
  tasks = tuple(tasks)
  return MultiTaskModel(trunk=trunk, heads=(head,) * len(tasks), tasks=tasks)
