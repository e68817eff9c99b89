"""Multi-task data: tfds builders without TensorFlow, and batches by grain.

Needs the extra ``data``: ``pip install 'mtljax[data]'``.
"""

from mtljax.data._sources import SOURCES
from mtljax.data.census import (
  CENSUS_TASKS,
  Census,
  census_columns,
  load_census,
  prepare_census,
)
from mtljax.data.multi_digits import (
  MultiDigits,
  MultiDigitsConfig,
  compose,
  prepare_multi_digits,
)
from mtljax.data.pipeline import (
  BatchIterator,
  channel_moments,
  eval_batches,
  load_arrays,
  make_streaming_iterator,
  make_train_iterator,
  normalize_images,
)
from mtljax.data.scenes import (
  SCENE_CLASSES,
  Scenes,
  ScenesConfig,
  load_scenes,
  prepare_scenes,
  render_scenes,
)

__all__ = [
  'BatchIterator',
  'CENSUS_TASKS',
  'Census',
  'MultiDigits',
  'MultiDigitsConfig',
  'SCENE_CLASSES',
  'SOURCES',
  'Scenes',
  'ScenesConfig',
  'census_columns',
  'channel_moments',
  'compose',
  'eval_batches',
  'load_arrays',
  'load_census',
  'load_scenes',
  'make_streaming_iterator',
  'make_train_iterator',
  'normalize_images',
  'prepare_census',
  'prepare_multi_digits',
  'prepare_scenes',
  'render_scenes',
]
