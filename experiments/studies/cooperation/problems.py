"""Two tasks on two modalities: planted ones, and parts of real images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.suites import DataOptions, digits, pool_images

SIZE = 20
#: Of the labels to train on, the share that is drawn anew.
WRONG = 0.1
POOL = 2
#: The first modality has the columns of pooled images before this one.
CUT = 6
SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True, eq=False)
class PairedTasks:
  """Two tasks, each with a modality that its sub-model sees.

  Attributes:
    name: its name.
    title: in a line.
    classes: of each task.
    splits: for train, validation and test the inputs ``x0`` and ``x1``,
      ``(N, D)``, and the labels ``y0`` and ``y1``, ``(N,)``.
  """

  name: str
  title: str
  classes: tuple[int, int]
  splits: Mapping[str, Mapping[str, np.ndarray]]


def _one_way(a, c):
  """The second task needs what the first has to find anyway."""
  return 4 * a[0] + 2 * a[1] + a[2], 2 * (a[0] ^ c[0]) + c[1]


def _both_ways(a, c):
  """Each task needs what the other has to find anyway."""
  return 2 * (a[0] ^ c[1]) + a[1], 2 * (c[0] ^ a[1]) + c[1]


#: The labels from three signs of each modality, and how many classes.
_PLANTED = {
  'one_way': (_one_way, (8, 4), 'the second task needs the first'),
  'both_ways': (_both_ways, (4, 4), 'each task needs the other'),
}


def planted(
  name: str, options: DataOptions, say: Callable[[str], Any]
) -> PairedTasks:
  """Labels made of the signs of three directions of each modality.

  A tenth of the labels to train on is drawn anew.
  """
  del say
  make, classes, title = _PLANTED[name]
  rng = np.random.default_rng([options.seed, 2])
  directions = [np.linalg.qr(rng.normal(size=(SIZE, 3)))[0] for _ in classes]
  counts = (
    options.num_train or 2000,
    options.num_validation or 500,
    options.num_test or 2000,
  )
  splits = {}
  for split, count in zip(SPLITS, counts, strict=True):
    x = [rng.normal(size=(count, SIZE)) for _ in classes]
    a, c = ((x[t] @ directions[t] > 0).T.astype(np.int32) for t in range(2))
    labels = list(make(a, c))
    if split == 'train':
      for t, num in enumerate(classes):
        wrong = rng.random(count) < WRONG
        labels[t] = np.where(wrong, rng.integers(num, size=count), labels[t])
    splits[split] = {
      'x0': x[0].astype(np.float32),
      'x1': x[1].astype(np.float32),
      'y0': labels[0].astype(np.int32),
      'y1': labels[1].astype(np.int32),
    }
  return PairedTasks(name, title, classes, splits)


def halves(options: DataOptions, say: Callable[[str], Any]) -> PairedTasks:
  """Two overlapping digits; one sub-model sees a third, the other the rest.

  The first has to tell the left digit from the third on the left, of which it
  is a part, the second the right digit from the rest.
  """
  splits = {}
  for split in SPLITS:
    arrays = digits.pairs(options.source or 'mnist_5k', split, options, say)
    images = pool_images(arrays['image'], POOL)[..., 0].astype(np.float32) / 255
    flat = lambda part: part.reshape(len(part), -1)
    splits[split] = {
      'x0': flat(images[:, :, :CUT]),
      'x1': flat(images[:, :, CUT:]),
      'y0': arrays['left'].astype(np.int32),
      'y1': arrays['right'].astype(np.int32),
    }
  for name in ('x0', 'x1'):
    train = splits['train'][name]
    mean, std = train.mean(), train.std()
    for arrays in splits.values():
      arrays[name] = (arrays[name] - mean) / std
  title = 'left and right digit from a third and the rest of an image'
  return PairedTasks('halves', title, (10, 10), splits)


PROBLEMS: dict[str, Callable[..., PairedTasks]] = {
  'one_way': functools.partial(planted, 'one_way'),
  'both_ways': functools.partial(planted, 'both_ways'),
  'halves': halves,
}
