"""Multi-task data: tfds builders without TensorFlow, and batches by grain.

Needs the extra ``data``: ``pip install 'mtljax[data]'``.
"""

from mtljax.data._balanced import BalancedIterator, make_balanced_iterator
from mtljax.data._mix import Source, make_mixed_iterator
from mtljax.data._sources import SOURCES
from mtljax.data.celeba import load_celeba
from mtljax.data.census import (
  CENSUS_TASKS,
  Census,
  census_columns,
  load_census,
  prepare_census,
)
from mtljax.data.cityscapes import load_cityscapes
from mtljax.data.dense_augment import scale_crop_flip
from mtljax.data.flights import (
  FLIGHTS_TASKS,
  Flights,
  load_flights,
  prepare_flights,
)
from mtljax.data.multi_digits import (
  MultiDigits,
  MultiDigitsConfig,
  compose,
  prepare_multi_digits,
)
from mtljax.data.nyuv2 import load_nyuv2
from mtljax.data.office import OFFICE_DOMAINS, load_office
from mtljax.data.pipeline import (
  BatchIterator,
  channel_moments,
  eval_batches,
  load_arrays,
  make_streaming_iterator,
  make_train_iterator,
  normalize_images,
)
from mtljax.data.qm9 import (
  QM9_TASKS,
  Qm9Molecules,
  load_qm9,
  prepare_qm9,
  qm9_atom_counts,
)
from mtljax.data.scenes import (
  SCENE_CLASSES,
  Scenes,
  ScenesConfig,
  load_scenes,
  prepare_scenes,
  render_scenes,
)
from mtljax.data.star import load_star

__all__ = [
  'BalancedIterator',
  'BatchIterator',
  'CENSUS_TASKS',
  'Census',
  'FLIGHTS_TASKS',
  'Flights',
  'MultiDigits',
  'MultiDigitsConfig',
  'OFFICE_DOMAINS',
  'QM9_TASKS',
  'Qm9Molecules',
  'SCENE_CLASSES',
  'SOURCES',
  'Scenes',
  'ScenesConfig',
  'Source',
  'census_columns',
  'channel_moments',
  'compose',
  'eval_batches',
  'load_arrays',
  'load_celeba',
  'load_census',
  'load_cityscapes',
  'load_flights',
  'load_nyuv2',
  'load_office',
  'load_qm9',
  'load_scenes',
  'load_star',
  'make_balanced_iterator',
  'make_mixed_iterator',
  'make_streaming_iterator',
  'make_train_iterator',
  'normalize_images',
  'prepare_census',
  'prepare_flights',
  'prepare_multi_digits',
  'prepare_qm9',
  'qm9_atom_counts',
  'prepare_scenes',
  'render_scenes',
  'scale_crop_flip',
]
