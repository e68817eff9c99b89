"""Customized gate control, and levels of it: progressive layered extraction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax.models import _base, _embed, _experts
from mtljax.models._multi_mlp import MLPHead


class PLEFeatures(NamedTuple):
  """What a trunk of several levels hands to the heads.

  Attributes:
    inputs: of the level before the last, for each task ``(B, D)``, or images.
    own: outputs there of each task's experts, ``(B, E, ...)``; none: ().
    shared: outputs there of the shared experts.
    last: outputs of the shared experts of the last level.
  """

  inputs: tuple[jax.Array, ...]
  own: tuple[jax.Array, ...]
  shared: jax.Array
  last: jax.Array


class Levels(nn.Module):
  """All of the levels but what a single task's loss reads.

  Subclasses say what experts are.

  Args:
    num_tasks: T.
    num_levels: at least two.
    num_shared: shared experts a level.
    num_own: experts a task and level.
    shared_gate: as in `ple`.
  """

  num_tasks: int
  num_levels: int = 2
  num_shared: int = 2
  num_own: int = 2
  shared_gate: bool = True

  def encode(self, x: Any, train: bool) -> jax.Array:
    """What the first level reads."""
    raise NotImplementedError

  def experts(self, level: int, count: int, name: str) -> nn.Module:
    """Some experts of a level."""
    raise NotImplementedError

  @nn.compact
  def __call__(self, x: Any, *, train: bool = False) -> Any:
    """Maps examples to `PLEFeatures`, or to those of each task."""
    x = self.encode(x, train)
    tasks, inputs, ours = range(self.num_tasks), (x,) * self.num_tasks, x
    for level in range(1, self.num_levels):
      name = f'level{level}'
      own = self._own(level, inputs, train)
      apart = level > 1 and not self.shared_gate
      shared = self._shared(level, inputs if apart else [ours], train)
      if self.shared_gate:
        whole = jnp.concatenate([*own, shared[0]], axis=1)
        ours = _experts.gated(ours, whole, f'{name}_gate_shared')
        if level == self.num_levels - 1:
          last = self._shared(self.num_levels, [ours], train)
          return PLEFeatures(inputs, own, shared[0], last[0])
      inputs = tuple(
        _experts.gated(
          inputs[t],
          jnp.concatenate([*own[t : t + 1], shared[t if apart else 0]], 1),
          f'{name}_gate_{t}',
        )
        for t in tasks
      )
    last = self._shared(self.num_levels, inputs, train)
    return tuple(map(_experts.ExpertFeatures, inputs, last))

  def _own(self, level, inputs, train):
    """The outputs of each task's experts on its inputs."""
    if not self.num_own:
      return ()
    return tuple(
      self.experts(level, self.num_own, f'level{level}_{t}')(x, train=train)
      for t, x in enumerate(inputs)
    )

  def _shared(self, level, inputs, train):
    """The outputs of the shared experts on each of several inputs."""
    experts = self.experts(level, self.num_shared, f'level{level}_shared')
    return [experts(x, train=train) for x in inputs]


class PLETrunk(Levels):
  """Levels of dense layers.

  Args:
    hidden_sizes: units of the layers of each expert.
    dropout_rate: of every layer's units.
    encoder: as in `ple`.
  """

  hidden_sizes: tuple[int, ...] = (64,)
  dropout_rate: float = 0.0
  encoder: nn.Module | None = None

  def encode(self, x: Any, train: bool) -> jax.Array:
    """Vectors ``(B, D)``."""
    return _embed.encode(self.encoder, x, train=train)

  def experts(self, level: int, count: int, name: str) -> nn.Module:
    """Dense layers, the same at every level."""
    del level
    return _experts.Experts(
      count, self.hidden_sizes, self.dropout_rate, name=name
    )


class PLEHead(nn.Module):
  """The gate before the last level, and a `GatedHead` on the last.

  Args:
    task: its place among the tasks.
    last: what reads the last level.
    raw_inputs: whether no parameter is read on the way to the inputs of the
      level before the last.
  """

  task: int
  last: _experts.GatedHead
  raw_inputs: bool = True

  @nn.compact
  def __call__(self, features: Any, *, train: bool = False) -> jax.Array:
    """Maps the trunk's features to the outputs of the last level."""
    if not isinstance(features, PLEFeatures):
      return self.last(features[self.task], train=train)
    x = features.inputs[self.task]
    x = jax.lax.stop_gradient(x) if self.raw_inputs else x
    own = features.own[self.task : self.task + 1]
    x = _experts.gated(
      x, jnp.concatenate([*own, features.shared], axis=1), 'gate_before'
    )
    return self.last(_experts.ExpertFeatures(x, features.last), train=train)


def cgc(
  tasks: Sequence[str],
  num_classes: int | Sequence[int] = 10,
  num_shared: int = 2,
  num_own: int = 2,
  expert_sizes: Sequence[int] = (64,),
  head_sizes: Sequence[int] = (),
  dropout_rate: float = 0.0,
  encoder: nn.Module | None = None,
) -> _base.MultiTaskModel:
  """Builds customized gate control (CGC).

  As `mmoe`, but each task has experts of its own too, and its gate mixes those
  with the shared ones. Shared: the shared experts (and the encoder). Of a
  task's own: its experts, its gate, its tower. Without own experts it is
  `mmoe`; more levels of it are `ple`.

  Args:
    tasks: the names of the tasks.
    num_classes: outputs per task, or one number a task; 1 for a regression or
      a binary task with a single logit.
    num_shared: shared experts.
    num_own: experts of each task's own, 0 or more.
    expert_sizes: units of the layers of each expert, at least one layer.
    head_sizes: units of the hidden layers of each tower.
    dropout_rate: in [0, 1), after every hidden layer; 0 needs no key.
    encoder: as in `mmoe`.

  Returns:
    The model.

  Raises:
    ValueError: if a number is too small, experts have no layer, or
      ``num_classes`` is not one a task.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = cgc(('income', 'married'), num_classes=1, expert_sizes=(4,))
    >>> params, _ = model.init(jax.random.key(0), jnp.zeros((3, 40)))
    >>> sorted(params['heads_0'])
    ['experts', 'gate', 'tower']

  References:
    Tang et al., Progressive Layered Extraction (PLE), 2020,
    https://doi.org/10.1145/3383313.3412236
  """
  return ple(
    tasks,
    num_classes,
    1,
    num_shared,
    num_own,
    expert_sizes,
    head_sizes,
    dropout_rate,
    encoder=encoder,
  )


def ple(
  tasks: Sequence[str],
  num_classes: int | Sequence[int] = 10,
  num_levels: int = 2,
  num_shared: int = 2,
  num_own: int = 2,
  expert_sizes: Sequence[int] = (64,),
  head_sizes: Sequence[int] = (),
  dropout_rate: float = 0.0,
  shared_gate: bool = True,
  encoder: nn.Module | None = None,
) -> _base.MultiTaskModel:
  """Builds progressive layered extraction (PLE): `cgc` level upon level.

  At every level each task's experts read the task's inputs and the shared
  experts the shared inputs. A gate a task mixes the task's experts with the
  shared ones, and makes the task's inputs of the next level. At every level
  but the last, a *shared gate* mixes all experts, of all tasks, and makes the
  shared inputs of the next. The last level is followed by the towers.

  Shared: what the losses of several tasks read. By the shared gate that is
  all experts of all levels before the last, those of single tasks among them,
  the shared experts of the last, the shared gates, and the tasks' gates of all
  levels before the last but one (and the encoder). Of a task's own: its gate
  of the level before the last, its experts and gate of the last, its tower.

  Args:
    tasks: the names of the tasks.
    num_classes: outputs per task, or one number a task; 1 for a regression or
      a binary task with a single logit.
    num_levels: levels of experts; one is `cgc`.
    num_shared: shared experts a level.
    num_own: experts of each task's own a level, 0 or more.
    expert_sizes: units of the layers of each expert, at least one layer.
    head_sizes: units of the hidden layers of each tower.
    dropout_rate: in [0, 1), after every hidden layer; 0 needs no key.
    shared_gate: False is what LibMTL does: there is no shared gate, and from
      the second level on the shared experts are evaluated on the inputs of each
      task, T times the work. The same parameters are labelled as shared, and
      each task's gate of the level before the last too; yet a task's experts
      and gates are then read by no other loss, whose gradient there is zero.
    encoder: as in `mmoe`.

  Returns:
    The model.

  Raises:
    ValueError: if a number is too small, experts have no layer, or
      ``num_classes`` is not one a task.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = ple(('income', 'married'), num_classes=1, expert_sizes=(4,))
    >>> params, _ = model.init(jax.random.key(0), jnp.zeros((3, 40)))
    >>> print(*sorted(params['trunk']))
    level1_0 level1_1 level1_gate_shared level1_shared level2_shared
    >>> sorted(params['heads_0']), sorted(params['heads_0']['last'])
    (['gate_before', 'last'], ['experts', 'gate', 'tower'])

  References:
    Tang et al., Progressive Layered Extraction (PLE), 2020,
    https://doi.org/10.1145/3383313.3412236
  """
  tasks, num_outputs = _experts.check(
    tasks,
    num_classes,
    dropout_rate,
    expert_sizes,
    head_sizes,
  )
  num_levels = _validate.integer('num_levels', num_levels, 1)
  num_shared = _validate.integer('num_shared', num_shared, 1)
  num_own = _validate.integer('num_own', num_own, 0)
  _validate.flag('shared_gate', shared_gate)
  sizes, raw = tuple(expert_sizes), encoder is None
  own = _experts.Experts(num_own, sizes, dropout_rate) if num_own else None
  last = [
    _experts.GatedHead(
      MLPHead(n, tuple(head_sizes), dropout_rate),
      own,
      raw_inputs=raw and num_levels == 1,
    )
    for n in num_outputs
  ]
  if num_levels == 1:
    experts = _experts.Experts(num_shared, sizes, dropout_rate)
    trunk = _experts.ExpertsTrunk(experts, encoder)
    return _base.MultiTaskModel(trunk, tuple(last), tasks)
  trunk = PLETrunk(
    len(tasks),
    num_levels,
    num_shared,
    num_own,
    bool(shared_gate),
    sizes,
    dropout_rate,
    encoder,
  )
  heads = [
    PLEHead(t, head, raw and num_levels == 2) for t, head in enumerate(last)
  ]
  return _base.MultiTaskModel(trunk, tuple(heads), tasks)
