"""NYUv2 by MTAN's files: segmentation, depth and surface normals, indoors.

Losses, augmentation, schedule, measures and what is reported are those of the
codes of CAGrad, Nash-MTL, FAMO and FairGrad; see docs/dense_data.md.
"""

from __future__ import annotations

from experiments.lab import dense, paint
from experiments.suites import Data, DataOptions, Suite
from mtljax import data

#: Images in a batch of test: depth and normals are measured by batch.
BATCH = 2

# mIoU, pixel accuracy (%); absolute, relative error; mean, median (degrees),
# within 11.25, 22.5 and 30 degrees (%).
_ROWS = {
  'STL': '38.30 63.76 .6754 .2780 25.01 19.21 30.14 57.20 69.15',
  'LS': '39.29 65.33 .5493 .2263 28.15 23.96 22.09 47.50 61.08',
  'SI': '38.45 64.27 .5354 .2201 27.60 23.37 22.53 48.57 62.32',
  'RLW': '37.17 63.77 .5759 .2410 28.27 24.18 22.26 47.05 60.62',
  'DWA': '39.11 65.31 .5510 .2285 27.61 23.18 24.17 50.18 62.39',
  'UW': '36.87 63.17 .5446 .2260 27.04 22.61 23.54 49.05 63.65',
  'MGDA': '30.47 59.90 .6070 .2555 24.88 19.45 29.18 56.88 69.36',
  'PCGrad': '38.06 64.64 .5550 .2325 27.41 22.80 23.86 49.83 63.14',
  'GradDrop': '39.39 65.12 .5455 .2279 27.48 22.96 23.38 49.44 62.87',
  'CAGrad': '39.79 65.49 .5486 .2250 26.31 21.58 25.61 52.36 65.58',
  'IMTL-G': '39.35 65.60 .5426 .2256 26.02 21.19 26.20 53.13 66.24',
  'MoCo': '40.30 66.07 .5575 .2135 26.67 21.83 25.61 51.78 64.85',
  'Nash-MTL': '40.13 65.93 .5261 .2171 25.26 20.08 28.40 55.47 68.15',
  'Aligned-MTL': '40.82 66.33 .5300 .2200 25.19 19.71 28.88 56.23 68.54',
  'FAMO': '38.88 64.90 .5474 .2194 25.06 19.57 29.21 56.61 68.98',
  'SDMGrad': '40.47 65.90 .5225 .2084 25.07 19.99 28.54 55.74 68.53',
  'FairGrad': '39.74 66.01 .5377 .2236 24.84 19.60 29.26 56.58 69.16',
  'STCH': '41.35 66.07 .4965 .2010 26.55 21.81 24.84 51.39 64.86',
  'DB-MTL': '41.42 66.45 .5251 .2160 25.03 19.50 28.72 56.17 68.73',
  'GO4Align': '40.42 65.37 .5492 .2167 24.76 18.94 30.54 57.87 69.84',
  'NTKMTL': '39.68 65.43 .5296 .2168 24.24 18.63 30.74 58.72 70.78',
  'F-LS': '40.28 65.30 .5360 .2173 27.14 22.56 24.45 50.29 63.57',
  'F-MGDA': '26.42 58.78 .6078 .2353 24.34 18.45 31.64 58.86 70.50',
  'F-PCGrad': '40.05 65.42 .5429 .2243 27.38 23.00 23.47 49.35 62.74',
  'F-CAGrad': '40.93 66.68 .5285 .2162 25.43 20.39 27.99 54.82 67.56',
  'F-IMTL': '40.42 65.61 .5389 .2121 25.03 19.75 28.90 56.19 68.72',
  'GradVac': '37.53 64.35 .5600 .2400 27.66 23.38 22.83 48.66 62.21',
  'GradNorm': '20.09 52.06 .7200 .2800 24.83 18.86 30.81 57.94 69.73',
}
PUBLISHED = dense.published(
  (
    'SegNet with MTAN; STL: SegNet for each task. Ban and Ji, Fair Resource '
    'Allocation in Multi-Task Learning, 2024, https://arxiv.org/abs/2402.15638,'
    ' and the papers of the methods after it'
  ),
  (
    'miou/segmentation %',
    'pixel_accuracy/segmentation %',
    'abs_err/depth',
    'rel_err/depth',
    'angle_mean/normals',
    'angle_median/normals',
    'within_11.25/normals %',
    'within_22.5/normals %',
    'within_30/normals %',
  ),
  _ROWS,
  differs=(
    'That is the preset paper, means over three seeds; there, learned weights '
    'have a learning rate of 0.025 of their own.'
  ),
)


def load(options: DataOptions, tasks: tuple[str, ...], say) -> Data:
  """Reads the files.

  By the source ``published`` all 795 training images are trained on, and the
  validation split is the test split; else a fifth of them is held out.
  """
  del tasks
  say('Reading NYUv2.')
  whole = {
    split: data.load_nyuv2(split=split, data_dir=options.dir)
    for split in ('train', 'test')
  }
  published = options.source == 'published'
  return dense.make_data(
    **whole, options=options, eval_batch=BATCH, held_out=not published
  )


SUITE = Suite(
  name='nyuv2',
  title='NYUv2, three dense tasks of rooms',
  tasks=(
    dense.segmentation(13, dense.over_batch),
    dense.depth(dense.over_batch, dense.mean_of_batches),
    dense.normals(dense.over_batch, dense.mean_of_batches),
  ),
  load=load,
  networks=dense.mtan_networks(),
  sources=dense.SOURCES,
  images=True,
  presets={
    'quick': dense.QUICK | {'data.pool': 4},
    'paper': dense.PAPER | {'batch_size': BATCH},
  },
  select=dense.select,
  published=PUBLISHED,
  pictures=paint.dense,
)
