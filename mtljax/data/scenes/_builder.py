"""A fixed set of rendered scenes as a tfds builder, without TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mtljax import _validate
from mtljax.data import _cache, _prepare
from mtljax.data.scenes import _render

SPLITS = ('train', 'validation', 'test')
_SIZES = (795, 200, 654)  # train and test as NYUv2 has
_TOGETHER, _PIXELS = 64, 64 * 64 * 64  # at most, rendered at a time
_LABELS = ('segmentation', 'depth', 'normals')


@dataclasses.dataclass(eq=False, kw_only=True)
class ScenesConfig(tfds.core.BuilderConfig):
  """What a `Scenes` data set is made of.

  ``name`` is derived from the fields, so each choice has its own directory.
  The same fields give the same scenes; the last bits of their depths, and a
  pixel at an edge, hang on the machine that renders them.

  Attributes:
    size: height and width in pixels, at least 8.
    seed: of all scenes; each split has a key of its own.
    num_train: scenes in the train split.
    num_validation: scenes in the validation split.
    num_test: scenes in the test split.

  Raises:
    ValueError: if a number is out of range.

  Example:
    >>> ScenesConfig(num_train=10).name
    '64x64-seed0-10-200-654'
  """

  name: str = ''
  size: tuple[int, int] = (64, 64)
  seed: int = 0
  num_train: int = _SIZES[0]
  num_validation: int = _SIZES[1]
  num_test: int = _SIZES[2]

  def __post_init__(self):
    self.size = _render.check_size(self.size)
    _validate.in_range('seed', self.seed, 0)
    sizes = [getattr(self, f'num_{split}') for split in SPLITS]
    for split, size in zip(SPLITS, sizes, strict=True):
      _validate.in_range(f'num_{split}', size, 1)
    height, width = self.size
    self.name = f'{height}x{width}-seed{self.seed}-' + '-'.join(map(str, sizes))
    self.description = f'Scenes of {height} x {width} pixels.'


class Scenes(_prepare.ArrayRecordBuilder):
  """Rendered scenes; tasks ``segmentation``, ``depth`` and ``normals``.

  Features: those of one scene of `render_scenes`, ``image`` as PNG, the labels
  losslessly packed.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
  BUILDER_CONFIGS = [ScenesConfig()]

  def _info(self) -> tfds.core.DatasetInfo:
    size = self.builder_config.size
    packed = lambda shape, dtype: tfds.features.Tensor(
      shape=shape, dtype=dtype, encoding='zlib'
    )
    return tfds.core.DatasetInfo(
      builder=self,
      description='Rendered scenes with exact dense labels.',
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(*size, 3), encoding_format='png'),
          'segmentation': packed(size, np.int32),
          'depth': packed(size, np.float32),
          'normals': packed((*size, 3), np.float32),
        }
      ),
      disable_shuffling=True,  # scenes are independent
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
    return {split: self._generate_examples(split) for split in SPLITS}

  def _generate_examples(
    self, split: str
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for key, example in enumerate(self._examples(split)):
      file = io.BytesIO()
      Image.fromarray(example['image']).save(file, 'PNG', compress_level=1)
      yield key, {**example, 'image': file.getvalue()}

  def compare(self) -> None:
    """Raises a DamagedError unless what is there is what would be built.

    Another machine may round a pixel at an edge to another surface.
    """
    for split in SPLITS:
      there = self.as_data_source(split=split)
      for key, example in enumerate(self._examples(split)):
        same = there[key]['segmentation'] == example['segmentation']
        if np.mean(same) < 0.98:
          raise _cache.DamagedError(
            f'{self.data_path} is of other scenes: example {key} of {split} is '
            f'not that of {self.builder_config.name}'
          )

  def _examples(self, split: str) -> Iterator[dict[str, np.ndarray]]:
    config = self.builder_config
    key = jax.random.fold_in(jax.random.key(config.seed), SPLITS.index(split))
    count = getattr(config, f'num_{split}')
    pixels = config.size[0] * config.size[1]
    together = max(1, min(_TOGETHER, _PIXELS // pixels))
    for start in range(0, count, together):
      found = jax.device_get(
        _render.render_range(key, start, together, config.size)
      )
      for i in range(min(together, count - start)):
        yield {name: x[i] for name, x in found.items()}


def prepare_scenes(
  config: ScenesConfig | None = None,
  *,
  data_dir: str | os.PathLike[str] | None = None,
  progress: Callable[[str], object] | None = None,
) -> Scenes:
  """Renders the data set unless it is there already.

  A directory from which a file is missing, cut or changed is made again.

  Args:
    config: what to build; None is the default.
    data_dir: the tfds directory; None is that of tfds.
    progress: called with a line of text before anything slow is done.

  Returns:
    The builder; ``builder.as_data_source(split=...)`` reads.

  Raises:
    OSError: if the directory cannot be written to.
  """
  config = config or ScenesConfig()
  return _prepare.prepare(
    lambda root: _make_builder(config, root),
    data_dir,
    SPLITS,
    progress,
    sizes={s: getattr(config, f'num_{s}') for s in SPLITS},
    compare=Scenes.compare,
  )


def load_scenes(
  config: ScenesConfig | None = None,
  *,
  split: str,
  data_dir: str | os.PathLike[str] | None = None,
  progress: Callable[[str], object] | None = None,
) -> dict[str, np.ndarray]:
  """Reads one split of `Scenes` into memory, rendering it if need be.

  Args:
    config: what it is made of; None is the default.
    split: ``'train'``, ``'validation'`` or ``'test'``.
    data_dir: the tfds directory; None is that of tfds.
    progress: called with a line of text before anything slow is done.

  Returns:
    The arrays of `render_scenes`, N scenes on axis 0.

  Raises:
    ValueError: if the split is unknown.
    OSError: if the directory cannot be written to.

  Example:
    >>> import tempfile
    >>> config = ScenesConfig(
    ...   size=(16, 16), num_train=3, num_validation=1, num_test=1
    ... )
    >>> with tempfile.TemporaryDirectory() as data_dir:
    ...   train = load_scenes(config, split='train', data_dir=data_dir)
    >>> train['image'].shape, train['depth'].dtype
    ((3, 16, 16, 3), dtype('float32'))
  """
  _validate.one_of('split', split, SPLITS)
  builder = prepare_scenes(config, data_dir=data_dir, progress=progress)
  source = builder.as_data_source(split=split)
  examples = [source[i] for i in range(len(source))]
  return {
    name: np.stack([example[name] for example in examples])
    for name in ('image', *_LABELS)
  }


def _make_builder(
  config: ScenesConfig, data_dir: str | os.PathLike[str] | None
) -> Scenes:
  if config.name in Scenes.builder_configs:
    return Scenes(config=config.name, data_dir=data_dir)
  with _without_custom_warning():
    return Scenes(config=config, data_dir=data_dir)


@contextlib.contextmanager
def _without_custom_warning() -> Iterator[None]:
  """Every choice of sizes is a custom configuration; tfds warns of each."""
  logger = logging.getLogger('absl')
  own = lambda record: (
    'Using custom data configuration' not in (record.getMessage())
  )
  logger.addFilter(own)
  try:
    yield
  finally:
    logger.removeFilter(own)
