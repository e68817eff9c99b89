"""Small data sets in the form of MTAN's: one .npy file an example and field."""

import contextlib
import unittest.mock

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

NYUV2 = {'image': (288, 384, 3), 'label': (288, 384), 'depth': (288, 384, 1)}
NYUV2['normal'] = (288, 384, 3)

CITYSCAPES = {'image': (128, 256, 3), 'label_7': (128, 256)}
CITYSCAPES['depth'] = (128, 256, 1)
FULL = (1024, 2048)


def fields(rng, shapes, classes):
  """One example by folder, in the dtypes of numpy's defaults."""
  found = {}
  for folder, shape in shapes.items():
    if folder.startswith('label'):
      found[folder] = rng.integers(-1, classes, shape).astype(np.float64)
    elif folder == 'normal':
      normal = rng.normal(size=shape)
      found[folder] = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    else:
      low = 0.0 if folder == 'image' else 0.5
      found[folder] = rng.uniform(low, 1, shape)
  found['depth'][:4] = 0
  if 'normal' in found:
    found['normal'][:4] = 0
  return found


def write(root, shapes, classes, counts):
  """Writes splits of so many examples, such as ``{'train': 4, 'val': 2}``."""
  rng = np.random.default_rng(0)
  for split, count in counts.items():
    for i in range(count):
      for folder, array in fields(rng, shapes, classes).items():
        path = root / split / folder / f'{i}.npy'
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array.astype(np.float32))


def write_nyuv2(data_dir, train=4, val=2):
  """Into a tfds directory."""
  root = data_dir / 'downloads' / 'manual' / 'nyuv2'
  write(root, NYUV2, 13, {'train': train, 'val': val})
  return root


def write_cityscapes(data_dir, train=4, val=2):
  """Into a tfds directory."""
  root = data_dir / 'downloads' / 'manual' / 'cityscapes'
  write(root, CITYSCAPES, 7, {'train': train, 'val': val})
  return root


def street(i):
  """A photograph, its labels and its disparity, of the size of the original."""
  rng = np.random.default_rng(i)
  small = rng.integers(0, 256, (64, 128, 3), np.uint8)
  labels = rng.integers(0, 34, (64, 128), np.uint8)
  disparity = rng.integers(0, 30_000, (64, 128)).astype(np.uint16)
  grow = lambda x: x.repeat(16, 0).repeat(16, 1)
  return {
    'image_left': grow(small),
    'image_right': grow(small),
    'segmentation_label': grow(labels),
    'disparity_map': grow(disparity),
  }


def prepare_cityscapes(data_dir, folder, counts):
  """As tfds prepares it, from files of our own instead of the original ones.

  Args:
    data_dir: the tfds directory.
    folder: for the images.
    counts: of images, by the name of a split.
  """
  paths = {}
  for i in range(sum(counts.values())):
    for name, array in street(i).items():
      paths[i, name] = folder / f'{name}_{i}.png'
      Image.fromarray(array).save(paths[i, name], compress_level=1)
  starts = dict(zip(counts, np.cumsum([0, *counts.values()]), strict=False))
  for config, reverse in (
    ('semantic_segmentation', False),
    ('stereo_disparity', True),
  ):
    builder = tfds.builder(
      f'cityscapes/{config}', data_dir=data_dir, file_format='array_record'
    )

    def examples(split, builder=builder, reverse=reverse):
      numbers = range(starts[split], starts[split] + counts[split])
      for i in reversed(numbers) if reverse else numbers:
        example = {
          name: str(paths[i, name])
          for name in builder.info.features
          if name != 'image_id'
        }
        yield f'{int(reverse)}{i}', {'image_id': f'city_{i}', **example}

    with contextlib.ExitStack() as stack:
      stack.enter_context(
        unittest.mock.patch.object(
          builder,
          '_split_generators',
          lambda *_, examples=examples: {x: examples(x) for x in counts},
        )
      )
      builder.download_and_prepare()
