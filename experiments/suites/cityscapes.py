"""Cityscapes: seven classes and inverse depth of streets.

Losses, augmentation, schedule, measures and what is reported are those of the
codes of CAGrad, Nash-MTL, FAMO and FairGrad; see docs/dense_data.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from experiments.lab import dense, paint
from experiments.suites import Data, DataOptions, Suite
from mtljax import data

#: Images in a batch of test: depth is measured by batch.
BATCH = 8
#: MTAN's files or those of tfds; with or without images held out.
SOURCES = (*dense.SOURCES, 'tfds_held_out', 'tfds_published')
# mIoU, pixel accuracy (%); absolute error, relative error (no percent).
_ROWS = {
  'STL': '74.01 93.16 .0125 27.77',
  'LS': '75.18 93.49 .0155 46.77',
  'SI': '70.95 91.73 .0161 33.83',
  'RLW': '74.57 93.41 .0158 47.79',
  'DWA': '75.24 93.52 .0160 44.37',
  'UW': '72.02 92.85 .0140 30.13',
  'MGDA': '68.84 91.54 .0309 33.50',
  'PCGrad': '75.13 93.48 .0154 42.07',
  'GradDrop': '75.27 93.53 .0157 47.54',
  'CAGrad': '75.16 93.48 .0141 37.60',
  'IMTL-G': '75.33 93.49 .0135 38.41',
  'MoCo': '75.42 93.55 .0149 34.19',
  'Nash-MTL': '75.41 93.66 .0129 35.02',
  'Aligned-MTL': '75.77 93.69 .0133 32.66',
  'FAMO': '74.54 93.29 .0145 32.59',
  'SDMGrad': '74.53 93.52 .0137 34.01',
  'FairGrad': '75.72 93.68 .0134 32.25',
  'GO4Align': '72.63 93.03 .0164 27.58',
  'NTKMTL': '73.71 92.71 .0136 27.21',
  'GradNorm': '73.72 93.04 .0124 34.11',
  'F-MGDA': '73.77 93.12 .0129 27.44',
  'F-PCGrad': '75.77 93.67 .0144 39.60',
  'F-CAGrad': '76.02 93.72 .0134 34.64',
  'F-IMTL': '76.63 93.76 .0124 31.17',
  'SAMO-FairGrad': '74.37 93.14 .0129 26.30',
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
  ),
  _ROWS,
  differs=(
    "That is the preset paper on MTAN's files, means over three seeds; there, "
    'learned weights have a learning rate of 0.025 of their own. Absolute '
    'errors by tfds are on another scale.'
  ),
)


def load(options: DataOptions, tasks: tuple[str, ...], say) -> Data:
  """Reads the files.

  By the sources ``published`` and ``tfds_published`` all training images are
  trained on, and the validation split is the test split; else a fifth of them
  is held out, which are the 595 of other papers.
  """
  del tasks
  say('Reading Cityscapes.')
  form = 'tfds' if options.source.startswith('tfds') else 'npy'
  whole = {
    split: data.load_cityscapes(
      split=split, form=form, data_dir=options.dir, progress=say
    )
    for split in ('train', 'test')
  }
  published = options.source.endswith('published')
  return dense.make_data(
    **whole, options=options, eval_batch=BATCH, held_out=not published
  )


def select(found: Mapping[str, float]) -> float:
  """Less delta-m against the published single-task row."""
  return PUBLISHED.score(found, lambda name: name.endswith('segmentation'))


SUITE = Suite(
  name='cityscapes',
  title='Cityscapes, two dense tasks of streets',
  tasks=(
    dense.segmentation(7, dense.over_batch),
    # Many inverse depths are near 0: relative errors are no shares of 1.
    dense.depth(dense.over_batch, dense.mean_of_batches, unit='', relative=''),
  ),
  load=load,
  networks=dense.mtan_networks(),
  sources=SOURCES,
  images=True,
  presets={
    'quick': dense.QUICK | {'data.pool': 2},
    'paper': dense.PAPER | {'batch_size': BATCH},
  },
  select=select,
  published=PUBLISHED,
  pictures=paint.dense,
)
