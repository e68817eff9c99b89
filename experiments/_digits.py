"""Two overlapping digits: data, models and measurements of the studies."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax as mtl
from mtljax import _validate, data, models
from mtljax.metrics import Accuracy, Mean

TASKS = ('left', 'right')
OPTIMIZERS: dict[str, Callable[[float], optax.GradientTransformation]] = {
  'adam': optax.adam,
  'adamw': optax.adamw,
  'sgd': optax.sgd,
  'momentum': functools.partial(optax.sgd, momentum=0.9),
}
MODELS = {
  'multi_lenet': models.multi_lenet,
  'multi_mlp': models.multi_mlp,
  'resnet': models.resnet,
  'resnet18': models.resnet18,
}
NUM_CLASSES = 10
CANVAS = 36
EVAL_BATCH = 500


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """The data set."""

  source: str = 'mnist_5k'
  """mnist_5k (ships with a package), or mnist, fashion_mnist,
  fashion_and_mnist (composed from what tfds has prepared on this machine)."""
  dir: pathlib.Path | None = None
  """Folder of tfds; its default is ~/tensorflow_datasets."""
  seed: int = 0
  """Seed of the splits and pairs."""
  num_train: int | None = None
  """Pairs to train on; by default 8,000 for mnist_5k, 48,000 for the others."""
  num_validation: int | None = None
  """Pairs to select on."""
  num_test: int | None = None
  """Pairs to test on."""


@dataclasses.dataclass(frozen=True)
class Digits:
  """The three splits in memory, and how images are normalised."""

  splits: dict[str, dict[str, np.ndarray]]
  mean: float
  std: float

  def inputs(self, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Images as the models want them."""
    return data.normalize_images(batch['image'], mean=self.mean, std=self.std)


def check_layers(hidden_sizes: Sequence[int]) -> None:
  """Raises ValueError for what is no trunk of an MLP."""
  if not hidden_sizes:
    raise ValueError('--hidden-sizes is empty: the trunk needs a layer.')
  for size in hidden_sizes:
    _validate.in_range('--hidden-sizes', size, 1)


def check_data(config: DataConfig) -> None:
  """Raises ValueError for data that cannot be composed."""
  _validate.one_of('--data.source', config.source, data.SOURCES)
  _validate.in_range('--data.seed', config.seed, 0)
  for name in ('num_train', 'num_validation', 'num_test'):
    value, option = getattr(config, name), name.replace('_', '-')
    if value is not None:
      _validate.in_range(f'--data.{option}', value, 1)


def load(
  config: DataConfig, batch_size: int, say: Callable[[str], None]
) -> Digits:
  """Reads the data, composing it first if it is not there yet."""
  check_data(config)
  splits = {
    split: data.load_arrays(
      config.source,
      split=split,
      data_dir=config.dir,
      seed=config.seed,
      num_train=config.num_train,
      num_validation=config.num_validation,
      num_test=config.num_test,
      progress=say,
    )
    for split in ('train', 'validation', 'test')
  }
  train = len(splits['train']['image'])
  if batch_size > train:
    raise ValueError(
      f'--batch-size={batch_size} is more than the {train} training pairs.'
    )
  mean, std = data.channel_moments(splits['train']['image'])
  return Digits(splits, float(mean[0]), float(std[0]))


def example_losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Cross entropy of each example, ``(B,)``."""
  return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def task_loss(task: str):
  """Cross entropy of a task, and its accuracy on the batch."""

  def loss_fn(logits, batch):
    return jnp.mean(example_losses(logits, batch[task])), {}

  return loss_fn


def task_metrics(task: str, logits: jax.Array, batch: Mapping[str, jax.Array]):
  """Mergeable metrics of a task's outputs on a batch with a mask."""
  losses = example_losses(logits, batch[task])
  return {
    f'loss/{task}': Mean.from_values(losses, mask=batch['mask']),
    f'accuracy/{task}': Accuracy.from_logits(
      logits, batch[task], mask=batch['mask']
    ),
  }


class Loaded(Protocol):
  """A data set in memory, and how batches become inputs of a model."""

  @property
  def splits(self) -> Mapping[str, Mapping[str, np.ndarray]]: ...

  def inputs(self, batch: Mapping[str, jax.Array]) -> jax.Array: ...


def over_batches(
  on_batch: Callable[[Any], Mapping[str, Any]], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """The values of mergeable metrics over all examples, 500 at a time."""
  totals: dict[str, Any] = {}
  for batch in data.eval_batches(arrays, EVAL_BATCH):
    found = on_batch(batch)
    totals = {
      name: totals[name].merge(x) if name in totals else x
      for name, x in found.items()
    }
  return {name: x.compute() for name, x in totals.items()}


def make_measure(
  model: models.MultiTaskModel, loaded: Loaded, metrics_of: Callable[..., Any]
):
  """``measure(params, model_state, batch)``: mergeable metrics, jitted."""

  @jax.jit
  def measure(params, model_state, batch):
    outputs = model.apply(params, model_state, loaded.inputs(batch))
    found = {}
    for task, logits in zip(model.tasks, outputs, strict=True):
      found |= metrics_of(task, logits, batch)
    return found

  return measure


def make_evaluate(measure: Callable[..., dict[str, Any]], loaded: Loaded):
  """``evaluate(state, split) -> metrics``, a pass over a split."""

  def evaluate(state, split):
    return over_batches(
      functools.partial(measure, state.params, state.model_state),
      loaded.splits[split],
    )

  return evaluate


def make_probe(
  loss: mtl.Staged, labels: Any, tasks: tuple[str, ...], loaded: Loaded
):
  """``probe(state)``: cosines between task gradients on a fixed batch."""
  batch = {k: v[:256] for k, v in loaded.splits['train'].items()}
  gramian_fn = mtl.value_and_gramian(loss, labels=labels, has_aux=True)

  @jax.jit
  def cosines(params, model_state, key):
    return mtl.cosines(gramian_fn(params, batch, model_state, key)[1])

  def probe(state):
    matrix = cosines(state.params, state.model_state, state.key)
    return {
      f'cosine/{a},{b}': matrix[i, j]
      for i, a in enumerate(tasks)
      for j, b in enumerate(tasks)
      if i < j
    }

  return probe


@dataclasses.dataclass(frozen=True)
class Problem:
  """What runs of all methods on the same tasks share, compiled once."""

  tasks: tuple[str, ...]
  labels: Any
  loss: mtl.Staged
  init: Callable[[jax.Array], tuple[Any, Any]]
  measure: Callable[..., dict[str, Any]]
  evaluate: Callable[..., dict[str, jax.Array]]
  probe: Callable[..., dict[str, jax.Array]]


def make_problem(
  model: models.MultiTaskModel,
  loaded: Loaded,
  make_loss: Callable[[str], Any] = task_loss,
  metrics_of: Callable[..., Any] = task_metrics,
) -> Problem:
  """Loss and measurements of a model."""
  tasks = model.tasks
  one = {name: x[:1] for name, x in loaded.splits['train'].items()}
  example = jax.eval_shape(loaded.inputs, one)
  init = jax.jit(lambda key: model.init(key, example))
  labels = mtl.label_params(
    jax.eval_shape(init, jax.random.key(0))[0],
    shared=model.shared,
    tasks=model.task_patterns,
  )
  loss = models.staged_loss(model, [make_loss(t) for t in tasks], loaded.inputs)
  probe = (
    make_probe(loss, labels, tasks, loaded) if len(tasks) > 1 else lambda _: {}
  )
  measure = make_measure(model, loaded, metrics_of)
  evaluate = make_evaluate(measure, loaded)
  return Problem(tasks, labels, loss, init, measure, evaluate, probe)


def mode_of(mode: str, model: str, route: str = 'auto') -> str:
  """How a step's T backward passes run: what is asked for, or the fastest."""
  if mode != 'auto':
    return mode
  # MultiLeNet's convolutions are matrix products on CPU, which a loop does not
  # slow down; those of the ResNets may be XLA's, which it does.
  loops = model == 'multi_lenet' and route != 'gramian'
  return 'map' if loops else 'unroll'


def tasks_of(name: str, tasks: tuple[str, ...] = TASKS) -> tuple[str, ...]:
  """The tasks that a method, or a single-task baseline, is trained on."""
  if name.startswith('single_'):
    return (name.removeprefix('single_'),)
  return tasks


def select(metrics: Mapping[str, float]) -> float:
  """The score of a state: its mean accuracy on validation."""
  scores = [v for name, v in metrics.items() if name.startswith('accuracy/')]
  return sum(scores) / len(scores)
