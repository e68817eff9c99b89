"""Are the features of multi-task networks more robust to corrupted images?

  python -m experiments.robustness_study

Networks are trained on two overlapping digits, by each task alone and by
several methods. Their trunks are then frozen, and their heads fitted again to
images under random corruptions. What is left of their accuracy on the test
images under every corruption and severity is compared with what is left of the
single-task networks'. To ``--out`` go ``config.json``, ``corrupted/``,
``runs/<model>.<method>/seed_<k>/`` with the accuracies in ``artifacts.npz``,
``results.csv``, ``summary.json`` and ``report.html`` with heat maps and the
verdict on the claim E10. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any, Literal

import rich.console

from experiments import (
  _command,
  _comparison,
  _conflict,
  _digits,
  _identity,
  _presets,
  _robustness,
  _robustness_report,
  _sources,
  _study,
  report,
)
from experiments._digits import MODELS, TASKS, DataConfig
from mtljax import _validate, data
from mtljax.data import corruptions


@dataclasses.dataclass(frozen=True)
class Config:
  """Compares what corrupted images leave of multi- and single-task networks."""

  preset: str = 'quick'
  """quick (about ten minutes on two cores) or paper. Other options override
  it."""
  out: pathlib.Path = pathlib.Path('results/robustness_study')
  """Folder for everything this run writes."""
  models: tuple[str, ...] = ('multi_mlp', 'multi_lenet')
  """Networks, separated by spaces: multi_mlp, multi_lenet, resnet (small),
  resnet18."""
  methods: tuple[str, ...] = (
    'sum_losses',
    'uncertainty',
    'rlw',
    'imtl',
    'pcgrad',
    'cagrad',
  )
  """Methods to compare with single-task training; see multi_digits."""
  seeds: int = 3
  """Number of seeds: 0, 1, ..."""
  epochs: int = 4
  """Passes over the training pairs."""
  learning_rate: float = 2e-3
  """Of Adam; it falls to zero along a cosine."""
  batch_size: int = 64
  """Examples a step."""
  corruptions: tuple[str, ...] = corruptions.CORRUPTIONS
  """The corruptions, separated by spaces: the fifteen common ones, or those
  and the four held out."""
  severities: tuple[int, ...] = (1, 3, 5)
  """Their severities, of 1 to 5."""
  scale: str = 'cifar'
  """What a severity means: cifar (made for 32 pixels) or imagenet (for 224)."""
  draws: int = 2
  """How often the heads see a training image, under a random corruption and
  severity each time."""
  refit_epochs: int = 20
  """Passes over these images."""
  refit_learning_rate: float = 5e-3
  """Of Adam on the heads; it falls to zero along a cosine."""
  min_seeds: int = 3
  """With fewer seeds nothing is decided."""
  diagnose: tuple[Literal['conflict'], ...] = ()
  """Measured inside training: conflict, as in multi_digits."""
  diagnose_every: int = 5
  """Steps between these measurements."""
  diagnose_samples: int = 8
  """Samples of a batch that are compared."""
  log_every: int = 25
  """Steps between lines of metrics."""
  resume: bool = True
  """Go on with what --out holds. --no-resume moves it aside and starts anew."""
  force: bool = False
  """Go on with unfinished runs that other versions, code or data began; what
  changed is kept in config.json."""
  progress: bool = True
  """Show a progress bar for the whole study."""
  data: DataConfig = dataclasses.field(
    default_factory=lambda: DataConfig(
      num_train=4000, num_validation=1000, num_test=1000
    )
  )
  """The digits."""


PRESETS = {
  'quick': Config(),
  'paper': Config(
    preset='paper',
    seeds=5,
    epochs=30,
    severities=corruptions.SEVERITIES,
    draws=4,
    data=DataConfig(),
  ),
}
# What may change between a run and its continuation in the same folder.
RESUMABLE = ('out', 'preset', 'models', 'methods', 'seeds', 'min_seeds')
RESUMABLE += ('resume', 'progress', 'data.dir')


def options_of(config: Config) -> _comparison.Options:
  """The options of the training on clean images."""
  ones = (1.0,) * len(TASKS)
  return _comparison.Options(
    methods=config.methods,
    weights=ones,
    scores=ones,
    seeds=config.seeds,
    epochs=config.epochs,
    learning_rate=config.learning_rate,
    batch_size=config.batch_size,
    diagnose=config.diagnose,
    diagnose_every=config.diagnose_every,
    diagnose_samples=config.diagnose_samples,
    log_every=config.log_every,
  )


def check(config: Config) -> None:
  """Raises ValueError for options that no study could be made of."""
  if not config.methods:
    raise ValueError(
      '--methods is empty: name at least one to compare with single-task '
      'training.'
    )
  _comparison.check(options_of(config), TASKS)
  _validate.one_of('--data.source', config.data.source, data.SOURCES)
  _validate.one_of('--scale', config.scale, ('cifar', 'imagenet'))
  for name in ('draws', 'refit_epochs', 'min_seeds'):
    _validate.in_range(f'--{name.replace("_", "-")}', getattr(config, name), 1)
  _validate.in_range(
    '--refit-learning-rate', config.refit_learning_rate, 0, open_low=True
  )
  for option, known in (
    ('models', tuple(MODELS)),
    ('corruptions', _robustness.KNOWN),
    ('severities', corruptions.SEVERITIES),
  ):
    values = getattr(config, option)
    if not values or len(set(values)) != len(values):
      raise ValueError(
        f'--{option}={values} must name at least one, and none twice.'
      )
    for value in values:
      _validate.one_of(f'--{option}', value, known)
  for name in config.models:
    _conflict.check_model(config, name)


@dataclasses.dataclass(frozen=True)
class Study:
  """A study whose options are known to be good, and whose data is there."""

  cells: list[_study.Cell]
  corrupt: Callable[[], _robustness.Corrupted]
  data: dict[str, Any]


def prepare(config: Config, console: rich.console.Console) -> Study:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  digits = _digits.load(
    config.data,
    config.batch_size,
    lambda text: console.print(text, markup=False),
  )
  corrupt = functools.cache(
    functools.partial(
      _robustness.make_corrupted,
      config.out / 'corrupted',
      digits.splits,
      _robustness.make_pairs(config.corruptions, config.severities),
      draws=config.draws,
      seed=config.data.seed,
      scale=config.scale,
    )
  )
  cells = [
    cell
    for name in config.models
    for cell in make_cells(config, name, digits, corrupt)
  ]
  return Study(cells, corrupt, {'digits': _identity.digests(digits.splits)})


def make_cells(
  config: Config,
  name: str,
  digits: _digits.Digits,
  corrupt: Callable[[], _robustness.Corrupted],
) -> list[_study.Cell]:
  """The runs of a network: each task alone, then all by every method."""
  options = options_of(config)
  train = digits.splits['train']
  steps = _sources.steps_per_epoch(train, config.batch_size)
  parts: dict[tuple[str, ...], Any] = {}
  probes: dict[tuple[str, ...], _conflict.Probe] = {}
  cells = []
  for method in _comparison.methods_of(options, TASKS):
    tasks = _digits.tasks_of(method)
    if tasks not in parts:
      model = MODELS[name](tasks=tasks, num_classes=_digits.NUM_CLASSES)
      problem = _digits.make_problem(model, digits)
      refit = _robustness.make_refit(
        problem,
        epochs=config.refit_epochs,
        batch_size=config.batch_size,
        learning_rate=config.refit_learning_rate,
      )
      probes |= _conflict.make_probes(options, {tasks: problem})
      network = _robustness.Network(model, problem, digits)
      parts[tasks] = (
        problem,
        _robustness.make_measure(network, corrupt, refit),
      )
    problem, measure = parts[tasks]
    mode = _digits.mode_of('auto', name)
    for cell in _comparison.make_cells(
      options,
      method,
      problem,
      train,
      None,
      mode=mode,
      probe=probes.get(tasks),
    ):
      cells.append(
        dataclasses.replace(
          cell,
          method=f'{name}.{method}',
          measure_fn=functools.partial(measure, cell.seed),
          num_steps=config.epochs * steps,
          steps_per_epoch=steps,
          facts={'model': name, 'base': method},
        )
      )
  return cells


def run(config: Config, study: Study, console: rich.console.Console) -> int:
  """Runs the study; returns how many runs failed."""
  start = time.perf_counter()
  values = dataclasses.asdict(config) | {
    'experiment': _robustness_report.NAME,
    'tasks': list(TASKS),
    'methods': list(dict.fromkeys(cell.method for cell in study.cells)),
  }
  inside = _identity.kept(config)
  _identity.open_study(
    config,
    values,
    ignore=RESUMABLE,
    data=study.data,
    inside=inside,
    runs=lambda: _study.endings(config.out, study.cells),
  )
  if any(_study.finished(config.out, cell) is None for cell in study.cells):
    kinds = len(config.corruptions) * len(config.severities)
    console.print(
      f'Images under {kinds} corruptions and severities, made once.'
    )
    study.corrupt()
  failed = _study.run_grid(
    config.out,
    study.cells,
    console,
    inside=inside,
    progress=config.progress,
    log_every=config.log_every,
    batch_size=config.batch_size,
    select=_digits.select,
    tensorboard=False,
  )
  summary = _robustness_report.write_report(config.out)
  _robustness_report.print_tables(summary, console)
  report.print_end(config.out, start, console)
  return failed


def main() -> None:
  """The command line."""
  _command.run_command(
    lambda: _presets.parse(
      Config, PRESETS, prog='python -m experiments.robustness_study'
    ),
    prepare,
    run,
  )


if __name__ == '__main__':
  main()
