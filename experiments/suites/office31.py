"""Office-31: objects in three kinds of photographs, a task a kind.

The family is made here; `office_home` says what differs. A step has as many
images of every domain, each with the label of its own task; the others' are -1.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.suites import (
  SPLITS,
  Data,
  DataOptions,
  Measure,
  Network,
  Published,
  Suite,
  Task,
  first_rows,
  names,
  pool_images,
  rows_apart,
)
from mtljax import data, models
from mtljax.metrics import Accuracy

#: Pixels of a side, by ``--data.source``.
SIZES = {'224': 224, '64': 64}
#: Of ImageNet, a channel.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class OfficeData(Data):
  """Images of several domains, of which every step has as many.

  An epoch is a pass over the largest domain; the others are begun again.

  Attributes:
    tasks: the names of the domains, which are the tasks.
  """

  tasks: tuple[str, ...] = ()
  spread = False

  def batches(
    self,
    batch_size: int,
    seed: int,
    rows: Any = None,
    tasks: Sequence[str] | None = None,
    augment: bool = False,
  ) -> Any:
    """As of `Data`; a task that is trained alone gets no more than its share.

    Raises:
      ValueError: only some rows are asked for, or domains have no like shares.
    """
    del augment  # none is known
    if rows is not None:
      raise ValueError('the domains of a step cannot be spread over devices.')
    chosen = tuple(self.tasks if tasks is None else tasks)
    train = self.splits['train']
    domains = self._domains()
    of_these = np.isin(domains, [self.tasks.index(task) for task in chosen])
    kept = {name: x[of_these] for name, x in train.items()}
    return data.make_balanced_iterator(
      kept,
      domains[of_these],
      batch_size=self.counted(batch_size, chosen),
      seed=seed,
    )

  def split_train(
    self, share: float, seed: int
  ) -> tuple[OfficeData, OfficeData]:
    """As of `Data`; the share is that of the images of every domain."""
    domains = self._domains()
    second = np.zeros(len(domains), bool)
    for place in range(len(self.tasks)):
      of_this = domains == place
      second[of_this] = rows_apart(np.sum(of_this), share, seed)
    return self._with_train(~second), self._with_train(second)

  def steps_per_epoch(
    self, batch_size: int, tasks: Sequence[str] | None = None
  ) -> int:
    """Whole shares in the largest domain, whatever tasks are trained."""
    del tasks
    largest = np.bincount(self._domains()).max()
    return int(largest) // self._share(batch_size)

  def counted(self, batch_size: int, tasks: Sequence[str]) -> int:
    """The examples in a step."""
    return self._share(batch_size) * len(tasks)

  def _share(self, batch_size: int) -> int:
    share, rest = divmod(batch_size, len(self.tasks))
    if rest or not share:
      raise ValueError(
        f'--batch-size={batch_size} must be a multiple of the '
        f'{len(self.tasks)} tasks, which have as many images in it.'
      )
    return share

  def _domains(self) -> np.ndarray:
    """Of each training image, the place of its task."""
    train = self.splits['train']
    return np.argmax([train[task] >= 0 for task in self.tasks], axis=0)


def load(
  name: str, options: DataOptions, tasks: tuple[str, ...], say
) -> OfficeData:
  """Reads the images of the domains that are tasks."""
  size = SIZES[options.source or next(iter(SIZES))]
  splits = {}
  for split in SPLITS:
    found = data.load_office(
      name,
      split=split,
      size=size,
      seed=options.seed,
      data_dir=options.dir,
      progress=say,
    )
    places = [data.OFFICE_DOMAINS[name].index(task) for task in tasks]
    of_these = np.isin(found['domain'], places)
    domain, label = found['domain'][of_these], found['label'][of_these]
    splits[split] = {
      'image': pool_images(found['image'][of_these], options.pool),
      **{
        task: np.where(domain == place, label, -1).astype(np.int32)
        for task, place in zip(tasks, places, strict=True)
      },
    }

  def inputs(batch):
    return data.normalize_images(batch['image'], mean=MEAN, std=STD)

  splits = first_rows(splits, options)
  return OfficeData(splits, inputs, eval_batch=64, tasks=tasks)


def is_there(labels: jax.Array) -> jax.Array:
  """Which images are of the domain of a task."""
  return labels >= 0


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Of each image, ``(B,)``; of one of another domain that of label 0."""
  return optax.losses.softmax_cross_entropy_with_integer_labels(
    logits, jnp.maximum(labels, 0)
  )


def accuracy(logits, labels, mask):
  """Of the class with the largest logit."""
  labels = jnp.maximum(labels, 0)
  return {'accuracy': Accuracy.from_logits(logits, labels, mask=mask)}


def of_objects(make, **options) -> Network:
  """A network of `mtljax.models` whose heads are alike."""

  def build(tasks, widths):
    del widths
    return make(names(tasks), num_classes=tasks[0].num_outputs, **options)

  return Network(make=build, batch_statistics=True)


def make_suite(
  name: str,
  title: str,
  num_classes: int,
  means: Mapping[str, tuple[float, float]],
) -> Suite:
  """A suite of the family.

  Args:
    name: of the suite, one of `mtljax.data.OFFICE_DOMAINS`.
    title: what it is.
    num_classes: of every task.
    means: by method, the published mean accuracy and how much better than
      single-task training it is, both in percent.
  """
  domains = data.OFFICE_DOMAINS[name]
  return Suite(
    name=name,
    title=title,
    # Not called classifications: most images have no label of a task, which a
    # study that changes labels would give them.
    tasks=tuple(
      Task(
        name=domain,
        num_outputs=num_classes,
        example_losses=cross_entropy,
        metrics=accuracy,
        measures=(Measure(name='accuracy', unit='%'),),
        present=is_there,
      )
      for domain in domains
    ),
    load=functools.partial(load, name),
    networks={
      'office_resnet18': of_objects(models.office_resnet18),
      'resnet_small': of_objects(
        models.resnet, stages=(1, 1, 1), width=16, features=0, stem='large'
      ),
    },
    sources=tuple(SIZES),
    images=True,
    presets={
      'quick': {
        'model': 'resnet_small',
        'methods': ('sum_losses', 'uncertainty', 'cagrad', 'nash_mtl'),
        'seeds': 1,
        'epochs': 10,
        'batch_size': 16 * len(domains),
        'learning_rate': 2e-3,
        'data.source': '64',
      },
      'paper': {
        'methods': ('sum_losses', 'mgda', 'cagrad', 'nash_mtl', 'db_mtl'),
        'epochs': 100,
        'batch_size': 64 * len(domains),
        'learning_rate': 1e-4,
        'weight_decay': 1e-5,
        'schedule': 'step',
        'decay_every': 100,
        'decay_factor': 0.5,
      },
    },
    published=Published(
      source=(
        'Lin et al., Dual-Balancing for Multi-Task Learning, 2023, '
        'https://arxiv.org/abs/2308.12029'
      ),
      baseline='STL',
      rows={},
      means={
        method: {'accuracy': round(average / 100, 4), 'delta_m': 0 - better}
        for method, (average, better) in means.items()
      },
      differs=(
        'There, the ResNet-18 begins with weights of ImageNet, without which '
        'accuracies are far lower; here it begins at random. There, batch norm '
        'sees one domain at a time, here all of a step.'
      ),
    ),
  )


SUITE = make_suite(
  'office31',
  'Office-31, objects in three domains',
  31,
  {
    'STL': (93.03, 0.0),
    'EW': (92.55, -0.61),
    'MGDA': (92.80, -0.27),
    'CAGrad': (92.04, -1.14),
    'Nash-MTL': (93.32, 0.24),
    'DB-MTL': (94.09, 1.05),
  },
)
