"""Small made-up data sets as tfds stores MNIST and Fashion-MNIST."""

import contextlib
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def make_images(count, shade, seed):
  """Labels in turn, and images with a bar at a place that the label says."""
  labels = np.arange(count) % 10
  noise = np.random.default_rng(seed).integers(0, 40, (count, 28, 28))
  images = noise.astype(np.uint8)
  for image, label in zip(images, labels, strict=True):
    image[2 * label + 4 : 2 * label + 7] = shade
  return images, labels


def write(data_dir, name, sizes, shade=250):
  """Prepares ``name`` in array_record, without its downloads.

  Args:
    data_dir: the tfds directory.
    name: ``'mnist'`` or ``'fashion_mnist'``.
    sizes: images in the train and in the test split.
    shade: of the bars.
  """
  builder = tfds.builder(name, data_dir=data_dir, file_format='array_record')

  def examples(size, seed):
    images, labels = make_images(size, shade, seed)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
      file = io.BytesIO()
      Image.fromarray(image).save(file, 'PNG')
      yield i, {'image': file.getvalue(), 'label': int(label)}

  builder._split_generators = lambda *_, **__: {
    split: examples(size, seed)
    for seed, (split, size) in enumerate(
      zip(('train', 'test'), sizes, strict=True)
    )
  }
  with contextlib.redirect_stderr(io.StringIO()):
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
          try_download_gcs=False,
          compute_stats=tfds.download.ComputeStatsMode.SKIP,
        )
      )
