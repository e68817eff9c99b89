"""Do methods with a preference draw better curves than fixed weights?

  python -m experiments.tradeoffs
  python -m experiments.tradeoffs --suite census

A grid of preferences is trained for, by fixed weights, by methods that take a
preference, and by one network that reads it, each with as many backward passes
in all. The points of a curve are the test losses of the last state: nothing is
selected. Curves are scored by their hypervolume in units of the grid's losses.
All preferences and seeds of a curve are the members of one sweep. To ``--out``
go ``config.json``, ``runs/<curve>.<k>/seed_<s>/``, ``results.csv``,
``summary.json`` and ``report.html`` with the curves and the verdicts on the
claims TC1, TC2 and TC3. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np
import rich.console

import mtljax as mtl
from experiments import suites
from experiments.lab import command, presets, study
from experiments.lab.options import (
  DataOptions,
  Options,
  check_counts,
  check_distinct,
  flag,
  free,
  override,
)
from experiments.lab.problem import Problem, make_problem
from experiments.lab.runs import RunSpec
from experiments.lab.suite import Data, Suite, Widths, check_widths
from experiments.studies.tradeoffs import curves
from experiments.studies.tradeoffs.claims import CURVES, NAME, NETWORKS
from mtljax import _validate
from mtljax.models import layers
from mtljax.training.step import sweep

NETWORK = 'multi_mlp'


@dataclasses.dataclass(frozen=True)
class TradeoffsConfig(Options):
  """Draws curves of trade-offs beside a grid of fixed weights."""

  preset: str = free('quick')
  """quick (about ten minutes on two cores) or long. Other options override
  it."""
  out: pathlib.Path = free(pathlib.Path('results/tradeoffs'))
  """Folder for everything this run writes."""
  suite: str = 'digits'
  """What is trained on: digits, census, flights, scenes, or another suite;
  its default tasks."""
  model: str = NETWORK
  """A network of the suite; by default multi_mlp where it has it, else that of
  its first preset."""
  curves: tuple[str, ...] = free(CURVES)
  """fixed (the grid of weights), cosmos, pbi, epo, pmtl and pmgda: a run a
  preference; input, interpolate, low_rank and hypernetwork: one network that
  reads it. Separated by spaces."""
  parts: int = 4
  """The preferences are the multiples of one over it: one more than it of two
  tasks."""
  inset: float = 0.1
  """How far preferences are drawn towards equal shares: at 0 those at the ends
  of the curve leave a task untrained."""
  steps: int = 300
  """Steps of each run of the grid. Curves whose steps take more backward passes
  have fewer, and one network has as many as all runs of the grid."""
  hidden_sizes: tuple[int, ...] = (64, 32)
  """Layers of the trunk."""
  head_sizes: tuple[int, ...] = ()
  """Hidden layers of each head; none: linear heads."""
  batch_size: int = 128
  """Examples a step."""
  learning_rate: float = 2e-3
  """Of Adam; it falls to zero along a cosine."""
  concentration: float = 1.0
  """Of the Dirichlet distribution of the preferences that one network is
  trained with."""
  sweep: str = free('auto')
  """How the runs of a curve share a program: vmap, map, unroll or loop; auto
  takes what is fastest on this backend."""
  seeds: int = free(5)
  """Number of seeds: 0, 1, ..."""
  min_seeds: int = free(3)
  """With fewer seeds no claim is decided."""
  log_every: int = 100
  """Steps between lines of metrics."""
  data: DataOptions = dataclasses.field(default_factory=DataOptions)
  """The data set; digits are averaged over squares of two pixels."""


#: What the quick preset of a suite has of its own.
QUICK: dict[str, dict[str, Any]] = {
  # Its networks have batch statistics, which three of the four ways refuse.
  'scenes': {
    'curves': ('fixed', 'cosmos', 'epo', 'pmgda', 'input'),
    'parts': 2,
    'steps': 60,
    'batch_size': 8,
    'seeds': 3,
    'data.num_train': 256,
    'data.num_validation': 32,
    'data.num_test': 64,
  },
}


def presets_of(name: str) -> dict[str, TradeoffsConfig]:
  """The presets on a suite; if there is none, what is wrong is said later."""
  pool = 2 if name == 'digits' else 1
  small = DataOptions(
    num_train=8000, num_validation=1000, num_test=4000, pool=pool
  )
  suite = suites.peek(name)
  model = suite.default_network(NETWORK) if suite else NETWORK
  own = QUICK.get(name, {})
  quick = TradeoffsConfig(suite=name, model=model, data=small)
  return {
    'quick': override(quick, own),
    'long': TradeoffsConfig(
      preset='long',
      suite=name,
      model=model,
      curves=own.get('curves', CURVES),
      parts=15,
      steps=3000,
      hidden_sizes=(128, 64),
      data=DataOptions(pool=pool),
    ),
  }


def suite_of(config: TradeoffsConfig) -> Suite:
  """The suite, with the tasks that are trained by default.

  Raises:
    ValueError: there is none of the name.
  """
  suite = suites.find(config.suite)
  return suite.with_tasks(suite.default_tasks)


def grid_of(config: TradeoffsConfig, num_tasks: int) -> np.ndarray:
  """The preferences, shape ``(K, T)``."""
  return mtl.pareto.grid(num_tasks, config.parts, inset=config.inset)


def check(config: TradeoffsConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  check_distinct('curves', config.curves)
  for name in config.curves:
    _validate.one_of('--curves', name, CURVES)
  _validate.one_of('--sweep', config.sweep, sweep.MODES)
  check_counts(
    config, ('seeds', 'steps', 'batch_size', 'min_seeds', 'log_every')
  )
  _validate.in_range('--parts', config.parts, 2)
  _validate.in_range('--inset', config.inset, 0, 1, open_high=True)
  for name in ('learning_rate', 'concentration'):
    _validate.in_range(flag(name), getattr(config, name), 0, open_low=True)
  check_widths(config.hidden_sizes, config.head_sizes)
  suite = suite_of(config)
  refused = [x for x in config.curves if x in NETWORKS and x != 'input']
  if suite.network(config.model).batch_statistics and refused:
    raise ValueError(
      f'--model={config.model!r} has batch statistics, which would be of other '
      f'weights at every preference: leave {", ".join(refused)} out of '
      '--curves, or take another network.'
    )
  suite.check_data(config.data)
  if len(suite.tasks) < 2:
    raise ValueError(
      f'--suite={config.suite} trains one task by default: nothing to trade.'
    )


def specs_of_runs(
  config: TradeoffsConfig,
  curve: str,
  problem: Problem,
  data: Data,
  grid: np.ndarray,
  mode: str,
) -> list[RunSpec]:
  """The runs of a curve that has one a preference."""
  steps = curves.num_steps(curve, config.steps, grid)
  build = functools.partial(
    curves.make_step, curve, problem, grid, steps, config.learning_rate, mode
  )

  def start(step, seed):
    return problem.start(step, jax.random.key(seed))

  found = []
  for k, preference in enumerate(grid):
    hparams = {'preference': preference.astype(np.float32)}
    step = build(hparams)
    found += [
      RunSpec(
        method=f'{curve}.{k:02d}',
        seed=seed,
        tasks=problem.tasks,
        step=step,
        build=build,
        hparams=hparams,
        init_fn=functools.partial(start, step, seed),
        batches_fn=functools.partial(data.batches, config.batch_size, seed),
        validate_fn=lambda state: {},
        test_fn=lambda state: problem.evaluate(state, 'test'),
        last_epochs=1,
        num_steps=steps,
        steps_per_epoch=steps,
      )
      for seed in range(config.seeds)
    ]
  return found


def specs_of_network(
  config: TradeoffsConfig, one: curves.OneNetwork
) -> list[RunSpec]:
  """The runs of one network for all preferences."""
  steps = curves.num_steps(one.how, config.steps, one.grid)
  step = one.make_step(steps, config.learning_rate)
  return [
    RunSpec(
      method=f'{one.how}.all',
      seed=seed,
      tasks=one.problem.tasks,
      step=step,
      init_fn=functools.partial(one.problem.start, step, jax.random.key(seed)),
      batches_fn=functools.partial(one.data.batches, config.batch_size, seed),
      validate_fn=lambda state: {},
      test_fn=functools.partial(one.evaluate, split='test'),
      last_epochs=1,
      num_steps=steps,
      steps_per_epoch=steps,
    )
    for seed in range(config.seeds)
  ]


def prepare(
  config: TradeoffsConfig, console: rich.console.Console
) -> study.Study:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  suite = suite_of(config)
  network = suite.network(config.model)
  grid = grid_of(config, len(suite.tasks))
  widths = Widths(
    hidden_sizes=config.hidden_sizes, head_sizes=config.head_sizes
  )
  data = suite.read(
    config.data,
    config.batch_size,
    lambda text: console.print(text, markup=False),
    selects=False,
  )
  if not data.spread:
    raise ValueError(
      f'--suite={config.suite}: its tasks are on batches of their own, and no '
      'step has losses to trade.'
    )
  problem = make_problem(suite, data, network, widths)
  groups = []
  for curve in config.curves:
    if curve in NETWORKS:
      one = curves.make_network(
        curve, suite, data, network, widths, grid, config.concentration
      )
      groups.append(specs_of_network(config, one))
    else:
      mode = network.mode_of('auto')
      groups.append(specs_of_runs(config, curve, problem, data, grid, mode))
  mode = config.sweep
  if mode == 'auto':
    mode = layers.default_sweep_mode(jax.default_backend())
  return study.Study(
    name=NAME,
    tasks=suite.task_names,
    groups=tuple(tuple(group) for group in groups),
    facts={'drawn': list(config.curves), 'grid': grid.tolist()},
    growing=('methods', 'drawn'),
    data={suite.name: suite.digests(data)},
    options={
      'log_every': config.log_every,
      'batch_size': config.batch_size,
      'tensorboard': False,
    },
    sweep=mode,
  )


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: presets.parse_on_suite(
      TradeoffsConfig, presets_of, prog='python -m experiments.tradeoffs'
    ),
    prepare,
    study.run,
  )
