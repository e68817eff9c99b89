"""Rendered scenes: segmentation, depth and surface normals of every pixel."""

from __future__ import annotations

from experiments.lab import dense, paint
from experiments.suites import SPLITS, Data, DataOptions, Suite
from mtljax import data, models

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
  splits = dense.pool(splits, options.pool)
  mean, std = data.channel_moments(splits['train']['image'])

  def inputs(batch):
    return data.normalize_images(batch['image'], mean=mean, std=std)

  height, width = splits['train']['depth'].shape[1:]
  together = max(1, PIXELS // (height * width))
  return Data(
    splits,
    inputs,
    eval_batch=together,
    probe_rows=together // 4 + 1,
    augment=data.scale_crop_flip,
  )


SUITE = Suite(
  name='scenes',
  title='rendered scenes',
  tasks=(
    dense.segmentation(CLASSES),
    dense.depth(),
    dense.normals(),
  ),
  load=load,
  networks={
    'segnet': dense.network(models.segnet),
    'segnet_full': dense.network(models.segnet, **dense.FULL),
    'mtan': dense.network(models.mtan_segnet),
    'mtan_full': dense.network(models.mtan_segnet, **dense.FULL),
    'deeplab_v3': dense.network(models.deeplab_v3, **dense.SMALL),
    'deeplab_v3_full': dense.network(models.deeplab_v3),
    'deeplab_v3_plus': dense.network(models.deeplab_v3_plus, **dense.SMALL),
    'cross_stitch': dense.network(models.cross_stitch, **dense.SMALL),
    'ltb': dense.network(models.ltb, **dense.SMALL),
  },
  sources=tuple(SIZES),
  images=True,
  presets={
    'quick': dense.QUICK,
    'paper': {
      'model': 'segnet_full',
      'epochs': 200,
      'batch_size': 2,
      'learning_rate': 1e-4,
      'schedule': 'step',
      'augment': True,
      'data.source': '288',
    },
  },
  select=dense.select,
  pictures=paint.dense,
)
