"""Rendered scenes: segmentation, depth and surface normals of every pixel."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax

from experiments.suites import (
  SPLITS,
  Data,
  DataOptions,
  Measure,
  Network,
  Suite,
  Task,
  names,
)
from mtljax import data, metrics, models

#: Of the networks that are not of the paper's size.
SMALL = {'depth': 10, 'width': 8, 'head_features': 32}
CLASSES = len(data.SCENE_CLASSES)
#: Height and width by the name of a source.
SIZES = {'64': (64, 64), '128': (128, 128), '288': (288, 384)}
COUNTS = ('num_train', 'num_validation', 'num_test')
#: Pixels that are measured at a time.
PIXELS = 64 * 64 * 64


def load(options: DataOptions, tasks: tuple[str, ...], say) -> Data:
  """Reads the scenes, rendering them first if they are not there yet."""
  del tasks
  size = SIZES[options.source or next(iter(SIZES))]
  counts = {
    f'num_{split}': getattr(options, f'num_{split}') for split in SPLITS
  }
  config = data.ScenesConfig(
    size=size,
    seed=options.seed,
    **{name: x for name, x in counts.items() if x is not None},
  )
  splits = {
    split: data.load_scenes(
      config, split=split, data_dir=options.dir, progress=say
    )
    for split in SPLITS
  }
  mean, std = data.channel_moments(splits['train']['image'])

  def inputs(batch):
    return data.normalize_images(batch['image'], mean=mean, std=std)

  together = max(1, PIXELS // (size[0] * size[1]))
  return Data(splits, inputs, eval_batch=together, probe_rows=together // 4 + 1)


def over_pixels(values: jax.Array, valid: jax.Array) -> jax.Array:
  """Means over the valid pixels of each image, ``(B,)``; 0 where none is."""
  axes = tuple(range(1, valid.ndim))
  total = jnp.sum(jnp.where(valid, values, 0), axes)
  return total / jnp.maximum(jnp.sum(valid, axes), 1)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Of logits ``(B, H, W, C)``; a label of -1 is ignored."""
  losses = optax.losses.softmax_cross_entropy_with_integer_labels(
    logits, jnp.maximum(labels, 0)
  )
  return over_pixels(losses, labels >= 0)


def depth_error(outputs: jax.Array, depth: jax.Array) -> jax.Array:
  """Absolute errors of outputs ``(B, H, W, 1)``; a depth of 0 is ignored."""
  return over_pixels(jnp.abs(outputs[..., 0] - depth), depth != 0)


def cosine_distance(outputs: jax.Array, normals: jax.Array) -> jax.Array:
  """One less the cosine, ``(B, H, W, 3)``; a normal (0, 0, 0) is ignored."""
  squared = jnp.sum(outputs**2, -1, keepdims=True)
  unit = outputs * jax.lax.rsqrt(squared + 1e-12)
  return over_pixels(1 - jnp.sum(unit * normals, -1), jnp.any(normals != 0, -1))


def pixels(make, outputs, labels, mask):
  """Metrics of dense labels; a masked image counts with none of its pixels."""
  shape = outputs.shape[:-1]
  mask = jnp.broadcast_to(mask.reshape(-1, 1, 1), shape)
  return make(outputs, labels, mask=mask)


def depth_of_pixels(outputs, depth, *, mask):
  """`metrics.depth_metrics` of outputs with a last axis of one."""
  return metrics.depth_metrics(outputs[..., 0], depth, mask=mask)


def dense(make, **options) -> Network:
  """A network of `mtljax.models` with an output a pixel for every task."""

  def build(tasks, widths):
    del widths
    return make(names(tasks), [task.num_outputs for task in tasks], **options)

  return Network(make=build, batch_statistics=True)


def select(found) -> float:
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


def task(name, outputs, losses, make, measures, **facts) -> Task:
  """A dense task."""
  return Task(
    name=name,
    num_outputs=outputs,
    example_losses=losses,
    metrics=functools.partial(pixels, make),
    measures=measures,
    **facts,
  )


SUITE = Suite(
  name='scenes',
  title='rendered scenes',
  tasks=(
    task(
      'segmentation',
      CLASSES,
      cross_entropy,
      metrics.segmentation_metrics,
      (
        Measure(name='miou', unit='%'),
        Measure(name='pixel_accuracy', unit='%'),
      ),
    ),
    task(
      'depth',
      1,
      depth_error,
      depth_of_pixels,
      (
        Measure(name='abs_err', unit='m', higher_is_better=False),
        Measure(name='rel_err', unit='%', higher_is_better=False),
      ),
    ),
    task(
      'normals',
      3,
      cosine_distance,
      metrics.normals_metrics,
      (
        Measure(name='angle_mean', unit='°', higher_is_better=False),
        Measure(name='angle_median', unit='°', higher_is_better=False),
        Measure(name='within_11.25', unit='%'),
        Measure(name='within_22.5', unit='%'),
        Measure(name='within_30', unit='%'),
      ),
    ),
  ),
  load=load,
  networks={
    'segnet': dense(models.segnet),
    'segnet_full': dense(
      models.segnet,
      widths=(64, 128, 256, 512, 512),
      num_convs=(2, 2, 3, 3, 3),
    ),
    'mtan': dense(models.mtan_segnet),
    'mtan_full': dense(
      models.mtan_segnet,
      widths=(64, 128, 256, 512, 512),
      num_convs=(2, 2, 3, 3, 3),
    ),
    'deeplab_v3': dense(models.deeplab_v3, **SMALL),
    'deeplab_v3_full': dense(models.deeplab_v3),
    'deeplab_v3_plus': dense(models.deeplab_v3_plus, **SMALL),
    'cross_stitch': dense(models.cross_stitch, **SMALL),
    'ltb': dense(models.ltb, **SMALL),
  },
  sources=tuple(SIZES),
  images=True,
  presets={
    'quick': {
      'methods': ('sum_losses', 'uncertainty', 'pcgrad', 'cagrad', 'fairgrad'),
      'seeds': 2,
      'epochs': 4,
      'batch_size': 8,
      'learning_rate': 2e-3,
      'data.num_train': 256,
      'data.num_validation': 64,
      'data.num_test': 128,
    },
    'paper': {
      'model': 'segnet_full',
      'epochs': 200,
      'batch_size': 2,
      'learning_rate': 1e-4,
      'data.source': '288',
    },
  },
  select=select,
)
