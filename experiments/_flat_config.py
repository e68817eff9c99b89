"""What the study of task-based flat regions can be asked for."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from experiments import _census, _conflict, _digits, _methods, _sources
from experiments._digits import DataConfig
from mtljax import _validate, data

METHODS = (
  'mgda',
  'pcgrad',
  'cagrad',
  'imtl_g',
  'nash_mtl',
  'fairgrad',
  'mean',
)
FORMS = (
  'plain',
  '2x',
  'flat',
  'direct',
  'sam',
  'matched',
  'direct_matched',
  'second',
  'each',
)
ASCENTS = ('plain', 'adaptive')
NORMS = ('separate', 'joint')
TASKS = {'digits': _digits.TASKS, 'census': _sources.CENSUS_TASKS}
# What a network of the data set was not trained for; the first by default.
OUT_OF_DATA = {'digits': ('rotated', *data.SOURCES), 'census': ('shuffled',)}


@dataclasses.dataclass(frozen=True)
class Config:
  """Tests the claims of task-based flat regions (F-MTL)."""

  preset: str = 'quick'
  """quick (a small problem, about twelve minutes on two cores) or paper (the
  published protocol, for an accelerator). Other options override it."""
  out: pathlib.Path = pathlib.Path('results/flat_regions')
  """Folder for everything this run writes."""
  dataset: str = 'digits'
  """digits, or census: Census-Income (KDD)."""
  methods: tuple[str, ...] = METHODS
  """Aggregators A, separated by spaces."""
  forms: tuple[str, ...] = FORMS
  """What is trained of each A: plain, 2x (A for twice the epochs), flat (F-A),
  direct (A on the SAM gradients), sam (G-SAM + A), matched (A, its shared
  update as long as F-A's), direct_matched, second and each."""
  ablation_methods: tuple[str, ...] = ('mgda', 'cagrad', 'imtl_g')
  """The A that second and each are trained for."""
  single_task: bool = True
  """Train each task alone too, with and without SAM."""
  low_resource: tuple[float, ...] = (0.1,)
  """Fractions of one task's training labels that are kept."""
  noisy: tuple[float, ...] = (0.2, 0.4)
  """Fractions of one task's training labels that are flipped."""
  corrupted_task: str = ''
  """The task whose labels are removed or flipped; by default the last, right of
  the digits and never_married of the census."""
  sweep_methods: tuple[str, ...] = ('cagrad',)
  """The A that radii are swept for."""
  sweep_rho: tuple[float, ...] = (0.01, 0.05, 0.1, 0.5, 1.0, 2.0)
  """Radii of the sweep, each with plain and with adaptive ascent."""
  seeds: int = 3
  """Number of seeds: 0, 1, ..."""
  epochs: int = 4
  """Passes over the training data."""
  model: str = 'multi_mlp'
  """multi_lenet, multi_mlp, resnet (small) or resnet18; on the census it must
  be multi_mlp."""
  hidden_sizes: tuple[int, ...] = (64, 32)
  """Layers of multi_mlp."""
  pool: int = 2
  """Images of digits are averaged over squares of so many pixels."""
  optimizer: str = 'adam'
  """adam, adamw, sgd or momentum."""
  learning_rate: float = 1e-3
  """Of the optimizer; constant."""
  batch_size: int = 64
  """Examples a step."""
  rho: float = 0.05
  """Radius of every sharpness-aware form outside the sweep."""
  ascent: str = 'plain'
  """plain or adaptive."""
  norms: str = 'separate'
  """separate (the paper) or joint (its code on these data)."""
  min_seeds: int = 3
  """With fewer seeds no claim is decided."""
  out_of_data: str = ''
  """Examples that the network was not trained for. Digits: rotated (the test
  pairs turned by a quarter, the default) or a source, as --data.source. Census:
  shuffled (the test rows, every column shuffled apart)."""
  probe_batches: int = 16
  """Batches whose gradients are compared after each epoch."""
  diagnose: tuple[Literal['conflict'], ...] = ()
  """Measured inside training: conflict, as in multi_digits."""
  diagnose_every: int = 5
  """Steps between these measurements."""
  diagnose_samples: int = 8
  """Samples of a batch that are compared."""
  log_every: int = 25
  """Steps between lines of metrics."""
  cost_rounds: int = 7
  """Rounds in which the time of a step is measured."""
  mode: str = 'auto'
  """How a step's T backward passes run: unroll, vmap or map."""
  resume: bool = True
  """Go on with what --out holds. --no-resume moves it aside and starts anew."""
  force: bool = False
  """Go on with unfinished runs that other versions, code or data began; what
  changed is kept in config.json."""
  tensorboard: bool = False
  """Write TensorBoard files too, where tensorboardX is installed."""
  progress: bool = True
  """Show a progress bar for the whole study."""
  data: DataConfig = dataclasses.field(
    default_factory=lambda: DataConfig(
      num_train=4000, num_validation=1000, num_test=2000
    )
  )
  """The digits."""
  census: _census.DataConfig = dataclasses.field(
    default_factory=lambda: _census.DataConfig(num_train=4000)
  )
  """The census."""


PRESETS = {
  'quick': Config(
    methods=('mgda', 'cagrad', 'imtl_g', 'mean'),
    ablation_methods=('cagrad',),
    noisy=(0.4,),
    sweep_rho=(0.01, 0.05, 0.1, 0.5),
    epochs=6,
  ),
  'paper': Config(
    preset='paper',
    sweep_methods=METHODS,
    noisy=(0.1, 0.2, 0.3, 0.4),
    epochs=200,
    model='resnet18',
    pool=1,
    batch_size=256,
    rho=2.0,
    ascent='adaptive',
    norms='joint',
    out_of_data='fashion_mnist',
    log_every=100,
    data=DataConfig(
      source='mnist', num_train=120_000, num_validation=20_000, num_test=20_000
    ),
  ),
}
# What may change between a run and its continuation in the same folder.
RESUMABLE = ('out', 'methods', 'forms', 'ablation_methods', 'single_task')
RESUMABLE += ('low_resource', 'noisy', 'sweep_methods', 'sweep_rho', 'seeds')
RESUMABLE += ('min_seeds', 'resume', 'tensorboard', 'progress', 'data.dir')
RESUMABLE += ('preset', 'census.dir')


def complete(config: Config) -> Config:
  """The options, with those that depend on the data set."""
  _validate.one_of('--dataset', config.dataset, TASKS)
  return dataclasses.replace(
    config,
    corrupted_task=config.corrupted_task or TASKS[config.dataset][-1],
    out_of_data=config.out_of_data or OUT_OF_DATA[config.dataset][0],
  )


def check(config: Config) -> None:
  """Raises ValueError for options that no study could be made of."""
  config = complete(config)
  for option in ('methods', 'ablation_methods', 'sweep_methods'):
    for name in getattr(config, option):
      _check_method(f'--{option.replace("_", "-")}', name)
  if not config.methods:
    raise ValueError('--methods is empty: name at least one aggregator.')
  for form in config.forms:
    _validate.one_of('--forms', form, FORMS)
  if 'plain' not in config.forms:
    raise ValueError('--forms lacks plain, which every other is compared with.')
  _validate.one_of(
    '--corrupted-task', config.corrupted_task, TASKS[config.dataset]
  )
  _validate.one_of('--model', config.model, _digits.MODELS)
  if config.dataset == 'census' and config.model != 'multi_mlp':
    raise ValueError(
      f'--model={config.model} needs images, which --dataset census has not; '
      'use multi_mlp.'
    )
  if config.census.num_train is not None:
    _validate.in_range('--census.num-train', config.census.num_train, 1)
  _validate.one_of('--optimizer', config.optimizer, _digits.OPTIMIZERS)
  _validate.one_of('--ascent', config.ascent, ASCENTS)
  _validate.one_of('--norms', config.norms, NORMS)
  _validate.one_of('--data.source', config.data.source, data.SOURCES)
  _validate.one_of(
    '--out-of-data', config.out_of_data, OUT_OF_DATA[config.dataset]
  )
  _validate.one_of('--mode', config.mode, ('auto', 'unroll', 'vmap', 'map'))
  for name in ('seeds', 'epochs', 'batch_size', 'log_every', 'pool'):
    _validate.in_range(_option(name), getattr(config, name), 1)
  for name in ('probe_batches', 'cost_rounds', 'min_seeds'):
    _validate.in_range(_option(name), getattr(config, name), 1)
  _validate.in_range('--learning-rate', config.learning_rate, 0, open_low=True)
  _conflict.check(config)
  _conflict.check_model(config, config.model)
  _digits.check_layers(config.hidden_sizes)
  _validate.in_range('--rho', config.rho, 0)
  for radius in config.sweep_rho:
    _validate.in_range('--sweep-rho', radius, 0)
  for fraction in config.low_resource:
    _validate.in_range('--low-resource', fraction, 0, 1, open_low=True)
  for fraction in config.noisy:
    _validate.in_range('--noisy', fraction, 0, 1)
  if _digits.CANVAS % config.pool:
    raise ValueError(
      f'--pool={config.pool} does not divide the {_digits.CANVAS} pixels of a '
      'side.'
    )


def _option(name: str) -> str:
  return f'--{name.replace("_", "-")}'


def _check_method(option: str, name: str) -> None:
  """Raises ValueError for what is no aggregator that this study can train."""
  _validate.one_of(option, name, _methods.wrappable_names())
  method = _methods.make_method(name, 2, None, rho=0.0)
  if method.weighting is not None and method.weighting.observe is not None:
    raise ValueError(
      f'{option}={name!r} reads the losses after the update as well, which the '
      f'perturbed forms do not have; take one of {", ".join(METHODS)}.'
    )
