"""Multi-MNIST, whole: two digits of the 70,000 that tfds has prepared.

The family of three that papers train on is made here: this suite, and
``multifashion`` and ``fashion_and_mnist``, whose files say what differs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from experiments.suites import Data, DataOptions, Published, Suite
from experiments.suites import digits as pairs
from mtljax import models

#: By ``--data.source``, how a pair is composed: the canvas that most papers
#: take, or Sener and Koltun's, which is shrunk.
CANVASES: Mapping[str, dict[str, int]] = {
  '36': {'offset': 8},
  '28': {'offset': 6, 'size': 28},
}
SOURCES = ('mnist', 'fashion_mnist', 'fashion_and_mnist')

NETWORKS = {
  **pairs.NETWORKS,
  'multi_lenet_dropout': pairs.of_images(
    functools.partial(models.multi_lenet, dropout_rate=0.5), mode='map'
  ),
}
_BATCH = {'batch_size': 256}
PRESETS = {
  'quick': {
    'epochs': 4,
    'learning_rate': 2e-3,
    'data.num_train': 8_000,
    'data.num_validation': 1_000,
    'data.num_test': 2_000,
  },
  'paper': _BATCH
  | {
    'model': 'resnet18',
    'methods': (
      'mgda',
      'pcgrad',
      'cagrad',
      'imtl_g',
      'nash_mtl',
      'fairgrad',
      'flat_mgda',
      'flat_pcgrad',
      'flat_cagrad',
      'flat_imtl_g',
      'flat_nash_mtl',
      'flat_fairgrad',
    ),
    'epochs': 200,
    'learning_rate': 1e-3,
    'schedule': 'constant',
    'data.num_train': 120_000,
    'data.num_test': 20_000,
  },
  'sener': _BATCH
  | {
    'model': 'multi_lenet_dropout',
    'epochs': 100,
    'optimizer': 'momentum',
    'learning_rate': 1e-2,
    'schedule': 'step',
    'decay_every': 10,
    'decay_factor': 0.85,
    'data.source': '28',
  },
  'kurin': _BATCH
  | {
    'model': 'multi_lenet_dropout',
    'seeds': 10,
    'epochs': 100,
    'learning_rate': 1e-2,
    'schedule': 'step',
    'decay_every': 1,
    'decay_factor': 0.95,
    'data.source': '28',
  },
}


def load(
  source: str, options: DataOptions, tasks: tuple[str, ...], say
) -> Data:
  """Reads the pairs, composing them of a tfds data set if need be."""
  del tasks
  canvas = CANVASES[options.source or next(iter(CANVASES))]
  return pairs.load_pairs(source, options, say, **canvas)


def other(source: str, found: Data, options: DataOptions, say):
  """The test pairs of another data set of the family."""
  del found
  images = load(source, options, pairs.TASKS, say).splits['test']['image']
  return {'image': images}


def make_suite(
  name: str, title: str, source: str, averages: Mapping[str, float]
) -> Suite:
  """A suite of the family.

  Args:
    name: of the suite.
    title: what it is.
    source: of its digits, one of `mtljax.data.SOURCES`.
    averages: by method, the published mean of both accuracies, in percent.
  """
  return Suite(
    name=name,
    title=title,
    tasks=pairs.DIGITS,
    load=functools.partial(load, source),
    networks=NETWORKS,
    sources=tuple(CANVASES),
    images=True,
    others={
      'rotated': pairs.rotated,
      **{x: functools.partial(other, x) for x in SOURCES if x != source},
    },
    presets=PRESETS,
    published=Published(
      source=(
        'Phan et al., Improving Multi-task Learning via Seeking Task-based '
        'Flat Regions, https://arxiv.org/abs/2211.13723; F-X: flat regions '
        'around X'
      ),
      baseline='STL',
      rows={},
      means={x: {'accuracy': y / 100} for x, y in averages.items()},
      differs=(
        'The preset paper is its protocol but for three things: there, the '
        'state is the one that is best on test, flat regions are adaptive '
        'with a radius of 2, and digits of validation are trained on.'
      ),
    ),
  )


SUITE = make_suite(
  'multi_mnist',
  'Multi-MNIST, two overlapping digits',
  'mnist',
  {
    'STL': 94.74,
    'MGDA': 95.05,
    'PCGrad': 95.06,
    'CAGrad': 95.01,
    'IMTL': 95.28,
    'Nash-MTL': 95.01,
    'FairGrad': 94.92,
    'F-MGDA': 95.68,
    'F-PCGrad': 95.92,
    'F-CAGrad': 95.95,
    'F-IMTL': 95.85,
    'F-Nash-MTL': 95.94,
    'F-FairGrad': 95.91,
  },
)
