"""Models, batches and losses of the timings of whole training steps.

`make_case` gives a case by its name, all of float32 with random contents, on
which time does not depend.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import mtljax as mtl
from mtljax import models
from mtljax.models import MultiTaskModel

NAMES = ('multi_lenet', 'mlp_8', 'mlp_40', 'resnet18_40', 'segnet')

Batch = dict[str, Any]
TaskLossFn = Callable[[jax.Array, Batch], tuple[jax.Array, dict[str, Any]]]


class Case(NamedTuple):
  """What is trained.

  Attributes:
    name: as in `NAMES`.
    model: trunk and heads.
    batch: ``{'x': inputs, 'y': (targets of task 0, ...)}``.
    loss_fns: for each task ``(output, batch) -> (loss, {})``.
    kinds: their names in `LOSSES`.
  """

  name: str
  model: MultiTaskModel
  batch: Batch
  loss_fns: Sequence[TaskLossFn]
  kinds: Sequence[str]

  @property
  def num_tasks(self) -> int:
    """T."""
    return self.model.num_tasks

  @property
  def loss(self) -> mtl.Staged:
    """For ``make_train_step(..., has_state=True)``."""
    return models.staged_loss(self.model, self.loss_fns, lambda b: b['x'])

  def init(self) -> tuple[Any, Any, Any]:
    """The parameters, the model's state, and the labels."""
    params, model_state = jax.jit(self.model.init)(
      jax.random.key(0), self.batch['x']
    )
    labels = mtl.label_params(
      params, shared=self.model.shared, tasks=self.model.task_patterns
    )
    return params, model_state, labels


def _cross_entropy(logits, target):
  losses = optax.losses.softmax_cross_entropy_with_integer_labels(
    logits, target
  )
  return jnp.mean(losses)


def _binary(logits, target):
  losses = optax.losses.sigmoid_binary_cross_entropy(logits[..., 0], target)
  return jnp.mean(losses)


def _absolute(output, target):
  return jnp.mean(jnp.abs(output - target))


def _angle(output, target):
  """One less the cosine of the angle between normals."""
  length = jnp.sqrt(jnp.sum(output**2, -1, keepdims=True) + 1e-6)
  return 1.0 - jnp.mean(jnp.sum(output / length * target, -1))


LOSSES = {
  'cross_entropy': _cross_entropy,
  'binary': _binary,
  'absolute': _absolute,
  'angle': _angle,
}


def _targets(key, kind, shape, classes):
  if kind == 'cross_entropy':
    return jax.random.randint(key, shape, 0, classes)
  if kind == 'binary':
    return jax.random.bernoulli(key, 0.5, shape).astype(jnp.float32)
  if kind == 'absolute':
    return jax.random.normal(key, (*shape, 1))
  target = jax.random.normal(key, (*shape, 3))
  return target / jnp.linalg.norm(target, axis=-1, keepdims=True)


def _task_loss(kind: str, t: int) -> TaskLossFn:
  return lambda output, batch: (LOSSES[kind](output, batch['y'][t]), {})


def build_case(name, model, x_shape, kinds, dense=False, classes=10) -> Case:
  """A case of random contents."""
  keys = jax.random.split(jax.random.key(1), len(kinds) + 1)
  shape = x_shape[:3] if dense else x_shape[:1]
  targets = [
    _targets(key, kind, shape, classes)
    for key, kind in zip(keys[1:], kinds, strict=True)
  ]
  batch = {'x': jax.random.normal(keys[0], x_shape), 'y': tuple(targets)}
  loss_fns = [_task_loss(kind, t) for t, kind in enumerate(kinds)]
  return Case(name, model, batch, loss_fns, kinds)


def task_names(num_tasks: int) -> tuple[str, ...]:
  """Names of so many tasks."""
  return tuple(f'task{t}' for t in range(num_tasks))


def multi_lenet(quick: bool = False) -> Case:
  """MultiLeNet on 36 x 36 images, two tasks of ten classes, batch 256."""
  size = 16 if quick else 256
  return build_case(
    'multi_lenet',
    models.multi_lenet(),
    (size, 36, 36, 1),
    ['cross_entropy'] * 2,
  )


def mlp(num_tasks: int, quick: bool = False) -> Case:
  """A trunk 64-1024-1024 (1.1M parameters), linear heads, batch 128."""
  size, width = (8, 32) if quick else (128, 1024)
  model = models.multi_mlp(
    task_names(num_tasks), num_classes=1, hidden_sizes=(width, width)
  )
  return build_case(
    f'mlp_{num_tasks}', model, (size, 64), ['binary'] * num_tasks
  )


def resnet18(num_tasks: int = 40, quick: bool = False) -> Case:
  """ResNet-18 on 64 x 64 images in colour, binary heads, batch 32."""
  size, side, width = (4, 32, 8) if quick else (32, 64, 64)
  model = models.resnet18(task_names(num_tasks), num_classes=1, width=width)
  return build_case(
    f'resnet18_{num_tasks}',
    model,
    (size, side, side, 3),
    ['binary'] * num_tasks,
  )


def segnet(quick: bool = False) -> Case:
  """A small SegNet on 64 x 64 images, three dense tasks, batch 8."""
  size, side, widths = (2, 16, (4, 8, 8)) if quick else (8, 64, (16, 32, 64))
  return build_case(
    'segnet',
    models.segnet(widths=widths),
    (size, side, side, 3),
    ['cross_entropy', 'absolute', 'angle'],
    dense=True,
    classes=13,
  )


_CASES: dict[str, Callable[..., Case]] = {
  'multi_lenet': multi_lenet,
  'mlp_8': functools.partial(mlp, 8),
  'mlp_40': functools.partial(mlp, 40),
  'resnet18_40': resnet18,
  'segnet': segnet,
}


def make_case(name: str, quick: bool = False) -> Case:
  """A case by its name, one of `NAMES`; ``quick``: everything small."""
  return _CASES[name](quick=quick)
