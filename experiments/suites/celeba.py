"""CelebA: forty attributes of a face, each a yes or a no."""

from __future__ import annotations

import functools

from experiments.suites import (
  SPLITS,
  Data,
  DataOptions,
  Network,
  Published,
  Suite,
  binary_task,
  names,
  pool_images,
)
from mtljax import data, models

TASKS = models.CELEBA_ATTRIBUTES

# F1 of each attribute, as the authors gave them when asked:
# github.com/Cranial-XIX/FAMO, issue 2, and github.com/OptMN-Lab/FairGrad,
# issue 1.
_ROWS = {
  'STL': (
    '.6736886 .68121034 .81524944 .5760289 .7205613 .8555076 .38203922 '
    '.58225113 .787647 .8321292 .5029583 .68694085 .6781237 .5240381 .5161666 '
    '.95694304 .6968786 .67976356 .8808315 .8582131 .97034 .93267566 .5057539 '
    '.40307626 .9703734 .48644206 .60786104 .5261031 .56907415 .59815097 '
    '.6858371 .924108 .5424991 .7406311 .71019936 .87365365 .9305602 '
    '.33704284 .7647628 .91907'
  ),
  'FairGrad': (
    '.673481 .6715126 .80895394 .59129095 .716146 .84868795 .5293899 .6024346 '
    '.79252076 .8232979 .49155608 .68601424 .6678187 .50076723 .5353463 '
    '.9543982 .6991702 .6246493 .87510586 .85260683 .9679586 .91303086 '
    '.53938675 .44097534 .9698319 .30875763 .5560105 .5475425 .5299987 '
    '.6050991 .72113657 .9100189 .48792267 .6447788 .7013081 .8596742 '
    '.92936283 .40353844 .7261722 .9126637'
  ),
}
_DELTA_M = {
  'LS': 4.15,
  'SI': 7.20,
  'RLW': 1.46,
  'DWA': 3.20,
  'UW': 3.23,
  'MGDA': 14.85,
  'PCGrad': 3.17,
  'GradDrop': 3.29,
  'CAGrad': 2.48,
  'IMTL-G': 0.84,
  'Nash-MTL': 2.84,
  'FAMO': 1.21,
  'GO4Align': 0.88,
  'NTKMTL': -0.77,
  'SAMO-FairGrad': -0.74,
  'LDC-MTL': -1.31,
}
PUBLISHED = Published(
  source=(
    'Liu et al., FAMO, 2023, https://arxiv.org/abs/2306.03792, and what '
    'followed its protocol: FairGrad, GO4Align, SAMO, NTKMTL, LDC-MTL'
  ),
  baseline='STL',
  rows={
    method: {
      f'f1/{task}': float(value)
      for task, value in zip(TASKS, row.split(), strict=True)
    }
    for method, row in _ROWS.items()
  },
  differs=(
    'The preset paper is the protocol of FAMO. The published row STL was '
    'measured with batch norm in training mode, which flatters or harms it by '
    'an unknown amount; here all rows are measured in evaluation mode.'
  ),
  means={method: {'delta_m': value} for method, value in _DELTA_M.items()},
)


def load(options: DataOptions, tasks: tuple[str, ...], say) -> Data:
  """Reads the photographs, at 64 x 64 or, with ``pool``, fewer pixels."""
  splits = {}
  for split in SPLITS:
    found = data.load_celeba(
      split=split,
      num_examples=getattr(options, f'num_{split}'),
      data_dir=options.dir,
      progress=say,
    )
    images = pool_images(found['image'], options.pool)
    splits[split] = {'image': images, **{task: found[task] for task in tasks}}
  return Data(splits, lambda batch: data.normalize_images(batch['image']))


def of_faces(make, **options) -> Network:
  """A network of `mtljax.models` with a logit a task."""

  def build(tasks, widths):
    del widths
    return make(names(tasks), **options)

  return Network(make=build, batch_statistics=True)


SUITE = Suite(
  name='celeba',
  title='CelebA, forty attributes of faces',
  tasks=tuple(binary_task(name, score='f1') for name in TASKS),
  load=load,
  networks={
    'celeba_cnn': of_faces(models.celeba_cnn),
    'celeba_cnn_small': of_faces(models.celeba_cnn, width=8),
    'resnet18': of_faces(
      functools.partial(models.resnet, num_classes=1),
      stages=(2, 2, 2, 2),
      width=64,
      features=0,
      stem='large',
    ),
  },
  images=True,
  presets={
    'quick': {
      'model': 'celeba_cnn_small',
      'methods': ('sum_losses', 'uncertainty', 'famo'),
      'baselines': False,
      'seeds': 1,
      'epochs': 4,
      'batch_size': 64,
      'learning_rate': 2e-3,
      'data.num_train': 4_000,
      'data.num_validation': 1_000,
      'data.num_test': 2_000,
      'data.pool': 2,
    },
    'paper': {
      'methods': (
        'sum_losses',
        'uncertainty',
        'rlw',
        'dwa',
        'mgda',
        'pcgrad',
        'cagrad',
        'imtl_g',
        'nash_mtl',
        'famo',
        'fairgrad',
      ),
      'baselines': False,
      'epochs': 15,
      'batch_size': 256,
      'learning_rate': 3e-4,
      'schedule': 'constant',
    },
  },
  published=PUBLISHED,
)
