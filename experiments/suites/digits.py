"""Two overlapping handwritten digits: a task for each, ten classes."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import optax

from experiments.suites import (
  SPLITS,
  Data,
  DataOptions,
  Measure,
  Network,
  Suite,
  Task,
  mlp,
  names,
  pool_images,
)
from mtljax import data, models
from mtljax.metrics import Accuracy

TASKS = ('left', 'right')
NUM_CLASSES = 10
SOURCES = tuple(data.SOURCES)


def pairs(source, split, options, say, **more):
  """The arrays of a split, as the options ask for it."""
  return data.load_arrays(
    source,
    split=split,
    data_dir=options.dir,
    seed=options.seed,
    num_train=options.num_train,
    num_validation=options.num_validation,
    num_test=options.num_test,
    progress=say,
    **more,
  )


def load(options: DataOptions, tasks: tuple[str, ...], say) -> Data:
  """Reads the pairs, composing them first if they are not there yet."""
  del tasks
  return load_pairs(options.source or SOURCES[0], options, say)


def load_pairs(
  source: str, options: DataOptions, say, *, size: int | None = None, **more
) -> Data:
  """Pairs of a source of `mtljax.data.load_arrays`.

  Args:
    source: of the single digits.
    options: how many pairs, drawn how.
    say: prints a line before slow work.
    size: pixels of a side that the canvas is shrunk to, by nearest neighbours;
      None keeps it.
    **more: of `mtljax.data.load_arrays`.
  """
  splits = {
    split: dict(pairs(source, split, options, say, **more)) for split in SPLITS
  }
  for arrays in splits.values():
    images = arrays['image']
    if size is not None:
      images = nearest(images, size)
    arrays['image'] = pool_images(images, options.pool)
  mean, std = data.channel_moments(splits['train']['image'])

  def inputs(batch):
    return data.normalize_images(
      batch['image'], mean=float(mean[0]), std=float(std[0])
    )

  return Data(splits, inputs)


def nearest(images: np.ndarray, size: int) -> np.ndarray:
  """Square images ``(N, H, H, C)``, of the pixels nearest to each new one."""
  places = ((np.arange(size) + 0.5) * images.shape[1] / size).astype(int)
  return np.ascontiguousarray(images[:, places][:, :, places])


def accuracy(outputs, labels, mask):
  """Of the class with the largest logit."""
  return {'accuracy': Accuracy.from_logits(outputs, labels, mask=mask)}


def of_images(make, **facts) -> Network:
  """A network of `mtljax.models` whose heads are alike."""

  def build(tasks, widths):
    del widths
    return make(tasks=names(tasks), num_classes=tasks[0].num_outputs)

  return Network(make=build, **facts)


def rotated(found: Data, options: DataOptions, say):
  """The test pairs turned by a quarter."""
  del options, say
  images = found.splits['test']['image']
  return {'image': np.ascontiguousarray(np.rot90(images, axes=(1, 2)))}


def other_source(source: str, found: Data, options: DataOptions, say):
  """The test pairs of another source."""
  del found
  options = dataclasses.replace(options, source=source)
  return {'image': load(options, TASKS, say).splits['test']['image']}


DIGITS = tuple(
  Task(
    name=name,
    num_outputs=NUM_CLASSES,
    num_classes=NUM_CLASSES,
    example_losses=(optax.losses.softmax_cross_entropy_with_integer_labels),
    metrics=accuracy,
    measures=(Measure(name='accuracy', unit='%'),),
  )
  for name in TASKS
)

NETWORKS = {
  # Its convolutions are matrix products on a CPU, which a loop does not slow
  # down; those of the ResNets may be XLA's, which it does.
  'multi_lenet': of_images(models.multi_lenet, mode='map'),
  'multi_mlp': mlp(),
  'resnet': of_images(models.resnet, batch_statistics=True),
  'resnet18': of_images(models.resnet18, batch_statistics=True),
}

SUITE = Suite(
  name='digits',
  title='two overlapping handwritten digits',
  tasks=DIGITS,
  load=load,
  networks=NETWORKS,
  sources=SOURCES,
  images=True,
  others={
    'rotated': rotated,
    **{x: functools.partial(other_source, x) for x in SOURCES},
  },
  presets={
    'quick': {
      'epochs': 4,
      'learning_rate': 2e-3,
      'weights': (1.0, 0.5),
      'scores': (0.1, 0.1),
    }
  },
)
