"""What the study of task-based flat regions can be asked for."""

from __future__ import annotations

import dataclasses
import pathlib

from experiments import suites
from experiments.lab import diagnose
from experiments.lab import methods as method_names
from experiments.lab.optimizers import OPTIMIZERS
from experiments.lab.options import (
  DataOptions,
  Options,
  check_counts,
  check_distinct,
  flag,
  free,
)
from experiments.lab.suite import Suite, check_widths
from mtljax import _validate

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


@dataclasses.dataclass(frozen=True)
class FlatRegionsConfig(Options, diagnose.DiagnoseOptions):
  """Tests the claims of task-based flat regions (F-MTL)."""

  preset: str = free('quick')
  """quick (a small problem, about twelve minutes on two cores), adaptive (the
  ascent, radius and norms of the authors' code on a small ResNet, learning
  rates tried) or paper (the published protocol, for an accelerator). Other
  options override it."""
  out: pathlib.Path = free(pathlib.Path('results/flat_regions'))
  """Folder for everything this run writes."""
  suite: str = 'digits'
  """What is trained on: digits, census, or another suite of classifications."""
  methods: tuple[str, ...] = free(METHODS)
  """Aggregators A, separated by spaces."""
  forms: tuple[str, ...] = free(FORMS)
  """What is trained of each A: plain, 2x (A for twice the epochs), flat (F-A),
  direct (A on the SAM gradients), sam (G-SAM + A), matched (A, its shared
  update as long as F-A's), direct_matched, second and each."""
  ablation_methods: tuple[str, ...] = free(('mgda', 'cagrad', 'imtl_g'))
  """The A that second and each are trained for."""
  single_task: bool = free(True)
  """Train each task alone too, with and without SAM."""
  low_resource: tuple[float, ...] = free((0.1,))
  """Fractions of one task's training labels that are kept."""
  noisy: tuple[float, ...] = free((0.2, 0.4))
  """Fractions of one task's training labels that are flipped."""
  corrupted_task: str = ''
  """The task whose labels are removed or flipped; by default the last."""
  sweep_methods: tuple[str, ...] = free(('cagrad',))
  """The A that radii are swept for."""
  sweep_rho: tuple[float, ...] = free((0.01, 0.05, 0.1, 0.5, 1.0, 2.0))
  """Radii of the sweep, each with plain and with adaptive ascent."""
  epochs: int = 4
  """Passes over the training data."""
  model: str = 'multi_mlp'
  """A network of the suite. Of the digits: multi_lenet, multi_mlp, resnet
  (small) or resnet18."""
  hidden_sizes: tuple[int, ...] = (64, 32)
  """Layers of multi_mlp."""
  optimizer: str = 'adam'
  """adam, adamw, sgd or momentum."""
  learning_rate: float = 1e-3
  """Of the optimizer; constant."""
  learning_rates: tuple[float, ...] = ()
  """Tried for each cell with a seed of its own, the one with the best state on
  validation is taken; none: --learning-rate for all."""
  batch_size: int = 64
  """Examples a step."""
  rho: float = 0.05
  """Radius of every sharpness-aware form outside the sweep."""
  ascent: str = 'plain'
  """plain or adaptive."""
  norms: str = 'separate'
  """separate (the paper) or joint (its code on these data)."""
  min_seeds: int = free(3)
  """With fewer seeds no claim is decided."""
  out_of_data: str = ''
  """Examples that the network was not trained for, by default the first that
  the suite has. Digits: rotated (the test pairs turned by a quarter) or a
  source, as --data.source. Census: shuffled (the test rows, every column
  shuffled apart)."""
  probe_batches: int = 16
  """Batches whose gradients are compared after each epoch."""
  log_every: int = 25
  """Steps between lines of metrics."""
  cost_rounds: int = 7
  """Rounds in which the time of a step is measured."""
  mode: str = 'auto'
  """How a step's T backward passes run: unroll, vmap or map."""
  tensorboard: bool = free(False)
  """Write TensorBoard files too, where tensorboardX is installed."""
  data: DataOptions = dataclasses.field(default_factory=DataOptions)
  """The data set; digits are averaged over squares of two pixels."""


#: The data options of a suite, where it is not `DATA`.
DATA_OF = {
  'digits': DataOptions(
    num_train=4000, num_validation=1000, num_test=2000, pool=2
  )
}
DATA = DataOptions(num_train=4000)


def presets_of(suite: str) -> dict[str, FlatRegionsConfig]:
  """The presets, with the data options of a suite."""
  data = DATA_OF.get(suite, DATA)
  return {
    'quick': FlatRegionsConfig(
      suite=suite,
      methods=('mgda', 'cagrad', 'imtl_g', 'mean'),
      ablation_methods=('cagrad',),
      noisy=(0.4,),
      sweep_rho=(0.01, 0.05, 0.1, 0.5),
      epochs=6,
      data=data,
    ),
    'adaptive': FlatRegionsConfig(
      preset='adaptive',
      suite=suite,
      methods=('cagrad',),
      forms=('plain', '2x', 'flat'),
      single_task=False,
      low_resource=(),
      noisy=(),
      sweep_methods=(),
      epochs=8,
      model='resnet' if suite == 'digits' else 'multi_mlp',
      learning_rates=(3e-4, 1e-3, 3e-3),
      rho=2.0,
      ascent='adaptive',
      norms='joint',
      data=dataclasses.replace(data, num_train=2000),
    ),
    'paper': FlatRegionsConfig(
      preset='paper',
      suite=suite,
      sweep_methods=METHODS,
      noisy=(0.1, 0.2, 0.3, 0.4),
      epochs=200,
      model='resnet18',
      batch_size=256,
      rho=2.0,
      ascent='adaptive',
      norms='joint',
      out_of_data='fashion_mnist',
      log_every=100,
      data=DataOptions(
        source='mnist',
        num_train=120_000,
        num_validation=20_000,
        num_test=20_000,
      ),
    ),
  }


def suite_of(config: FlatRegionsConfig) -> Suite:
  """The suite, with the tasks that are trained by default.

  Raises:
    ValueError: there is none of the name, or a task is no classification.
  """
  suite = suites.find(config.suite)
  for task in suite.tasks:
    if task.num_classes is None:
      raise ValueError(
        f'--suite={config.suite!r}: its task {task.name} is no classification, '
        'whose labels could be flipped.'
      )
  return suite.with_tasks(suite.default_tasks)


def complete(config: FlatRegionsConfig) -> FlatRegionsConfig:
  """The options, with those that depend on the suite."""
  suite = suite_of(config)
  return dataclasses.replace(
    config,
    corrupted_task=config.corrupted_task or suite.task_names[-1],
    out_of_data=config.out_of_data or next(iter(suite.others), ''),
  )


def check(config: FlatRegionsConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  config = complete(config)
  for option in ('methods', 'ablation_methods', 'sweep_methods'):
    for name in getattr(config, option):
      _check_method(flag(option), name)
  if not config.methods:
    raise ValueError('--methods is empty: name at least one aggregator.')
  for form in config.forms:
    _validate.one_of('--forms', form, FORMS)
  if 'plain' not in config.forms:
    raise ValueError('--forms lacks plain, which every other is compared with.')
  suite = suite_of(config)
  _validate.one_of('--corrupted-task', config.corrupted_task, suite.task_names)
  network = suite.network(config.model)
  suite.check_data(config.data)
  _validate.one_of('--optimizer', config.optimizer, OPTIMIZERS)
  _validate.one_of('--ascent', config.ascent, ASCENTS)
  _validate.one_of('--norms', config.norms, NORMS)
  _validate.one_of('--out-of-data', config.out_of_data, suite.others)
  _validate.one_of('--mode', config.mode, ('auto', 'unroll', 'vmap', 'map'))
  check_counts(config, ('seeds', 'epochs', 'batch_size', 'log_every'))
  check_counts(config, ('probe_batches', 'cost_rounds', 'min_seeds'))
  _validate.in_range('--learning-rate', config.learning_rate, 0, open_low=True)
  for rate in config.learning_rates:
    _validate.in_range('--learning-rates', rate, 0, open_low=True)
  if config.learning_rates:
    check_distinct('learning_rates', config.learning_rates)
  diagnose.check(config, config.batch_size)
  diagnose.check_network(config, config.model, network)
  check_widths(config.hidden_sizes, ())
  _validate.in_range('--rho', config.rho, 0)
  for radius in config.sweep_rho:
    _validate.in_range('--sweep-rho', radius, 0)
  for fraction in config.low_resource:
    _validate.in_range('--low-resource', fraction, 0, 1, open_low=True)
  for fraction in config.noisy:
    _validate.in_range('--noisy', fraction, 0, 1)


def _check_method(option: str, name: str) -> None:
  """Raises ValueError for what is no aggregator that this study can train."""
  _validate.one_of(option, name, method_names.wrappable_names())
  method = method_names.make_method(name, 2, None, rho=0.0)
  if method.weighting is not None and method.weighting.observe is not None:
    raise ValueError(
      f'{option}={name!r} reads the losses after the update as well, which the '
      f'perturbed forms do not have; take one of {", ".join(METHODS)}.'
    )
