"""What suites of dense tasks share: losses, measures, tasks and networks."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lab.options import DataOptions
from experiments.lab.suite import (
  Data,
  Network,
  Published,
  first_rows,
  names,
  pool_images,
)
from experiments.lab.task import Measure, Task
from mtljax import data, metrics, models

#: Of the networks that are not of the paper's size.
SMALL = {'depth': 10, 'width': 8, 'head_features': 32}
FULL = {'widths': (64, 128, 256, 512, 512), 'num_convs': (2, 2, 3, 3, 3)}

#: What ``--data.source`` says of validation; see `make_data`.
SOURCES = ('held_out', 'published')
QUICK = {
  'methods': ('sum_losses', 'uncertainty', 'pcgrad', 'cagrad', 'fairgrad'),
  'seeds': 2,
  'epochs': 4,
  'batch_size': 8,
  'learning_rate': 2e-3,
  'data.num_train': 256,
  'data.num_validation': 64,
  'data.num_test': 128,
}
#: Of the codes of CAGrad, Nash-MTL, FAMO and FairGrad.
PAPER = {
  'model': 'mtan_full',
  'shared': 'all_but_predictions',
  'baseline_model': 'segnet_full',
  'epochs': 200,
  'last_epochs': 10,
  'augment': True,
  'learning_rate': 1e-4,
  'schedule': 'step',
  'data.source': 'published',
}


def over_pixels(values: jax.Array, valid: jax.Array) -> jax.Array:
  """Means over the valid pixels of each image, ``(B,)``; 0 where none is."""
  axes = tuple(range(1, valid.ndim))
  total = jnp.sum(jnp.where(valid, values, 0), axes)
  return total / jnp.maximum(jnp.sum(valid, axes), 1)


def over_batch(values: jax.Array, valid: jax.Array) -> jax.Array:
  """Shares of images, ``(B,)``, whose mean is that of all valid pixels."""
  axes = tuple(range(1, valid.ndim))
  total = jnp.sum(jnp.where(valid, values, 0), axes)
  return total * len(total) / jnp.maximum(jnp.sum(valid), 1)


def cross_entropy(
  logits: jax.Array, labels: jax.Array, mean=over_pixels
) -> jax.Array:
  """Of logits ``(B, H, W, C)``; a label of -1 is ignored."""
  losses = optax.losses.softmax_cross_entropy_with_integer_labels(
    logits, jnp.maximum(labels, 0)
  )
  return mean(losses, labels >= 0)


def depth_error(
  outputs: jax.Array, depth: jax.Array, mean=over_pixels
) -> jax.Array:
  """Absolute errors of outputs ``(B, H, W, 1)``; a depth of 0 is ignored."""
  return mean(jnp.abs(outputs[..., 0] - depth), depth != 0)


def cosine_distance(
  outputs: jax.Array, normals: jax.Array, mean=over_pixels
) -> jax.Array:
  """One less the cosine, ``(B, H, W, 3)``; a normal (0, 0, 0) is ignored."""
  squared = jnp.sum(outputs**2, -1, keepdims=True)
  unit = outputs * jax.lax.rsqrt(squared + 1e-12)
  return mean(1 - jnp.sum(unit * normals, -1), jnp.any(normals != 0, -1))


def pixels(make, outputs, labels, mask):
  """Metrics of dense labels; a masked image counts with none of its pixels."""
  shape = outputs.shape[:-1]
  mask = jnp.broadcast_to(mask.reshape(-1, 1, 1), shape)
  return make(outputs, labels, mask=mask)


def mean_of_batches(make, outputs, labels, mask):
  """Means over batches of their metrics, as in MTAN's code."""
  return {
    name: metrics.Mean.from_values(metric.compute()[None])
    for name, metric in pixels(make, outputs, labels, mask).items()
  }


def depth_of_pixels(outputs, depth, *, mask):
  """`metrics.depth_metrics` of outputs with a last axis of one."""
  return metrics.depth_metrics(outputs[..., 0], depth, mask=mask)


def network(make, **options) -> Network:
  """A network of `mtljax.models` with an output a pixel for every task."""

  def build(tasks, widths):
    del widths
    return make(names(tasks), [task.num_outputs for task in tasks], **options)

  return Network(make=build, batch_statistics=True)


def task(name, outputs, losses, over, make, measures, **facts) -> Task:
  """A dense task."""
  return Task(
    name=name,
    num_outputs=outputs,
    example_losses=losses,
    metrics=functools.partial(over, make),
    measures=measures,
    **facts,
  )


def segmentation(classes: int, mean=over_pixels) -> Task:
  """Classes of pixels, by mIoU and pixel accuracy over a whole split."""
  return task(
    'segmentation',
    classes,
    functools.partial(cross_entropy, mean=mean),
    pixels,
    metrics.segmentation_metrics,
    (
      Measure(name='miou', unit='%'),
      Measure(name='pixel_accuracy', unit='%'),
    ),
  )


def depth(
  mean=over_pixels, over=pixels, *, unit: str = 'm', relative: str = '%'
) -> Task:
  """A number a pixel, by its absolute and relative error."""
  return task(
    'depth',
    1,
    functools.partial(depth_error, mean=mean),
    over,
    depth_of_pixels,
    (
      Measure(name='abs_err', unit=unit, higher_is_better=False),
      Measure(name='rel_err', unit=relative, higher_is_better=False),
    ),
  )


def normals(mean=over_pixels, over=pixels) -> Task:
  """Directions of surfaces, by angles and shares within three angles."""
  return task(
    'normals',
    3,
    functools.partial(cosine_distance, mean=mean),
    over,
    metrics.normals_metrics,
    (
      Measure(name='angle_mean', unit='°', higher_is_better=False),
      Measure(name='angle_median', unit='°', higher_is_better=False),
      Measure(name='within_11.25', unit='%'),
      Measure(name='within_22.5', unit='%'),
      Measure(name='within_30', unit='%'),
    ),
  )


def select(found: Mapping[str, float]) -> float:
  """Higher is better, of shares that are all of one size."""
  scores = [
    sign * found[name]
    for name, sign in (
      ('miou/segmentation', 1),
      ('rel_err/depth', -1),
      ('within_30/normals', 1),
    )
    if name in found
  ]
  return sum(scores) / len(scores)


def mtan_networks() -> dict[str, Network]:
  """The networks of NYUv2 and Cityscapes, small and of the papers' size."""
  return {
    'segnet': network(models.segnet, definition='mtan'),
    'segnet_full': network(models.segnet, definition='mtan', **FULL),
    'mtan': network(models.mtan_segnet),
    'mtan_full': network(models.mtan_segnet, **FULL),
    'cross_stitch': network(models.cross_stitch_segnet),
    'cross_stitch_full': network(models.cross_stitch_segnet, **FULL),
    'deeplab_v3': network(models.deeplab_v3, **SMALL),
    'deeplab_v3_full': network(models.deeplab_v3),
    **{
      name + end: network(make, **options)
      for name, make in (
        ('mmoe', models.mmoe_resnet),
        ('cgc', models.cgc_resnet),
        ('ple', models.ple_resnet),
        ('dselect_k', models.dselect_k_resnet),
      )
      for end, options in (('', SMALL), ('_full', {}))
    },
  }


def published(
  source: str,
  columns: tuple[str, ...],
  rows: Mapping[str, str],
  *,
  differs: str = '',
) -> Published:
  """Rows of a table, of which those of columns with a % are in percent."""
  return Published(
    source=source,
    baseline='STL',
    rows={
      method: {
        name.removesuffix(' %'): float(x) / (100 if name[-1] == '%' else 1)
        for name, x in zip(columns, row.split(), strict=True)
      }
      for method, row in rows.items()
    },
    differs=differs,
  )


def make_data(
  train: Mapping[str, np.ndarray],
  test: Mapping[str, np.ndarray],
  options: DataOptions,
  eval_batch: int,
  *,
  held_out: bool,
) -> Data:
  """The data of two splits, whose images enter as shares of 1, as in MTAN's.

  Args:
    train: all training images with their labels.
    test: those of the test.
    options: how many there are of each, and the pooling.
    eval_batch: images that are measured at a time.
    held_out: whether a part of the training images, drawn by the seed, is the
      validation split: a fifth by default. Else that is the test split.
  """
  splits = {'train': train, 'validation': test, 'test': test}
  if held_out:
    splits |= _hold_out(train, options)
  return Data(
    pool(first_rows(splits, options), options.pool),
    lambda batch: data.normalize_images(batch['image']),
    eval_batch=eval_batch,
    probe_rows=eval_batch,
    augment=data.scale_crop_flip,
    validates_on_test=not held_out,
  )


def _hold_out(
  train: Mapping[str, np.ndarray], options: DataOptions
) -> dict[str, dict[str, np.ndarray]]:
  """The training images in two parts."""
  count = len(train['image'])
  apart = options.num_validation or max(count // 5, 1)
  if apart >= count:
    raise ValueError(
      f'--data.num-validation={apart} leaves none of the {count} training '
      'images to train on.'
    )
  order = np.random.default_rng(options.seed).permutation(count)
  parts = {'validation': order[:apart], 'train': order[apart:]}
  return {
    split: {name: x[np.sort(rows)] for name, x in train.items()}
    for split, rows in parts.items()
  }


def pool(
  splits: Mapping[str, Mapping[str, np.ndarray]], size: int
) -> dict[str, dict[str, np.ndarray]]:
  """Images averaged over squares, labels of the pixel in their middle."""
  middle = slice(size // 2, None, size)
  return {
    split: {
      name: pool_images(x, size)
      if name == 'image'
      else np.ascontiguousarray(x[:, middle, middle])
      for name, x in arrays.items()
    }
    for split, arrays in splits.items()
  }
