"""Is a network that is merged as good as one that is trained jointly?

  python -m experiments.merging
  python -m experiments.merging --suite census

Networks of single tasks that began at one set of parameters are merged by task
arithmetic, TIES and AdaMerging, and stand beside one network that was trained
on the sum of the losses for as many steps as all of them together. To ``--out``
go ``config.json``, ``runs/<start>/seed_<k>.npz``, ``results.csv``,
``summary.json`` and ``report.html`` with the verdicts on the claims G1, G2 and
G3. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
import optax
import rich.console

import mtljax as mtl
from experiments import suites
from experiments.lab import command, presets, seeds
from experiments.lab.options import (
  DataOptions,
  Options,
  check_counts,
  check_distinct,
  free,
)
from experiments.lab.problem import Problem, make_problem
from experiments.lab.suite import Data, Suite, Widths, check_widths
from experiments.studies.merging.claims import (
  ALONE,
  ARMS,
  JOINT,
  NAME,
  PRETRAINED,
  START,
  STARTS,
)
from experiments.studies.merging.merges import Merger, merged_of
from mtljax import _validate
from mtljax.models import layers
from mtljax.training import make_sweep, make_train_step
from mtljax.training.step import sweep

NETWORK = 'multi_mlp'
#: What tasks are fine-tuned on comes in another order than before.
FINE = 10_000


@dataclasses.dataclass(frozen=True)
class MergingConfig(Options):
  """Compares merged networks with one that is trained jointly."""

  preset: str = free('quick')
  """quick (a few minutes on two cores) or long. Other options override it."""
  out: pathlib.Path = free(pathlib.Path('results/merging'))
  """Folder for everything this run writes."""
  suite: str = 'digits'
  """What is trained on: digits, census, flights, or another suite that
  multi_mlp fits; its default tasks."""
  starts: tuple[str, ...] = free(STARTS)
  """Where the networks of a seed begin: pretrained, on all tasks for a while,
  or random. Separated by spaces."""
  start_steps: int = 100
  """Steps of the pretrained start."""
  steps: int = 300
  """Steps of each task's network; joint training has T times as many."""
  merge_steps: int = 500
  """Steps of AdaMerging, at the rate of its authors."""
  hidden_sizes: tuple[int, ...] = (64, 32)
  """Layers of the trunk."""
  head_sizes: tuple[int, ...] = ()
  """Hidden layers of each head; none: linear heads."""
  batch_size: int = 128
  """Examples a step."""
  learning_rate: float = 2e-3
  """Of Adam; it falls to zero along a cosine, but for the pretrained start."""
  sweep: str = free('auto')
  """How the networks of the tasks share a program: vmap, map, unroll or loop;
  auto takes what is fastest on this backend."""
  seeds: int = free(8)
  """Number of seeds: 0, 1, ..."""
  min_seeds: int = free(3)
  """With fewer seeds no claim is decided."""
  data: DataOptions = dataclasses.field(default_factory=DataOptions)
  """The data set; digits are averaged over squares of two pixels, minutes of
  flights standardised."""


def presets_of(suite: str) -> dict[str, MergingConfig]:
  """The presets, with the data options of a suite."""
  whole = DataOptions(
    pool=2 if suite == 'digits' else 1,
    source='standardised' if suite == 'flights' else '',
  )
  small = dataclasses.replace(
    whole, num_train=4000, num_validation=1000, num_test=4000
  )
  return {
    'quick': MergingConfig(suite=suite, data=small),
    'long': MergingConfig(
      preset='long',
      suite=suite,
      start_steps=500,
      steps=3000,
      hidden_sizes=(128, 64),
      data=whole,
    ),
  }


def check(config: MergingConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  check_distinct('starts', config.starts)
  for name in config.starts:
    _validate.one_of('--starts', name, STARTS)
  _validate.one_of('--sweep', config.sweep, sweep.MODES)
  check_counts(
    config,
    (
      'seeds',
      'start_steps',
      'steps',
      'merge_steps',
      'batch_size',
      'min_seeds',
    ),
  )
  _validate.in_range('--learning-rate', config.learning_rate, 0, open_low=True)
  check_widths(config.hidden_sizes, config.head_sizes)
  suite = suites.find_with(config.suite, NETWORK)
  suite.check_data(config.data)
  if len(suite.tasks) < 2:
    raise ValueError(
      f'--suite={config.suite} trains one task by default: nothing to merge.'
    )


@dataclasses.dataclass(frozen=True, eq=False)
class MergingSetting:
  """The tasks, their network, and its train steps."""

  config: MergingConfig
  suite: Suite
  data: Data
  problem: Problem

  @property
  def columns(self) -> tuple[str, ...]:
    """The metrics that delta-m is taken over."""
    return tuple(self.suite.facts()['delta_m_metrics'])

  @property
  def num_steps(self) -> int:
    """Training steps of a seed, those of all tasks' networks counted once."""
    config = self.config
    return config.start_steps + (1 + len(self.suite.tasks)) * config.steps

  @functools.cached_property
  def merger(self) -> Merger:
    """What merges."""
    config = self.config
    return Merger(
      self.suite,
      self.data,
      self.problem,
      config.batch_size,
      config.merge_steps,
    )

  def _step(self, method: Any, rate: Any):
    return make_train_step(
      method, optax.adam(rate), self.problem.loss, has_state=True
    )

  def _falling(self, count: int):
    return optax.cosine_decay_schedule(self.config.learning_rate, count)

  @functools.cached_property
  def pretraining(self):
    """The step of all tasks before they part."""
    method = mtl.sum_losses(len(self.suite.tasks), labels=self.problem.labels)
    return self._step(method, self.config.learning_rate)

  @functools.cached_property
  def joint(self):
    """The step of joint training."""
    num_tasks = len(self.suite.tasks)
    method = mtl.sum_losses(num_tasks, labels=self.problem.labels)
    return self._step(method, self._falling(num_tasks * self.config.steps))

  @functools.cached_property
  def alone(self):
    """The steps of all tasks' networks, a member a task."""
    num_tasks = len(self.suite.tasks)

    def build(hparams):
      method = mtl.fixed(num_tasks, labels=self.problem.labels, **hparams)
      return self._step(method, self._falling(self.config.steps))

    mode = self.config.sweep
    if mode == 'auto':
      mode = layers.default_sweep_mode(jax.default_backend())
    return make_sweep(
      build, {'weights': np.eye(num_tasks, dtype=np.float32)}, mode=mode
    )

  def base(self, start: str, seed: int, count: Callable[[], None]):
    """Parameters and model state that all networks of a seed begin at."""
    key = jax.random.key(seed)
    state = self.problem.start(self.pretraining, key)
    if start == PRETRAINED:
      batches = self.data.batches(self.config.batch_size, seed)
      for _ in range(self.config.start_steps):
        state, _ = self.pretraining.step(state, next(batches))
        count()
    return state.params, state.model_state

  def run(
    self, start: str, seed: int, on_step: Callable[[int], None]
  ) -> dict[str, Any]:
    """Metrics of all arms from a start, and what merging chose.

    Args:
      start: one of ``STARTS``.
      seed: of the parameters and of the order of the data.
      on_step: called with the number of steps made.

    Returns:
      ``<split>/<arm>``: the metrics of ``columns``; and what `Merger.merge` has
      chosen, as ``chosen/<name>``.
    """
    made = 0

    def count():
      nonlocal made
      made += 1
      on_step(made)

    config, num_tasks = self.config, len(self.suite.tasks)
    params, model_state = self.base(start, seed, count)
    fresh = lambda: jax.tree.map(jax.numpy.array, (params, model_state))
    again = lambda: self.data.batches(config.batch_size, FINE + seed)
    key = jax.random.key(FINE + seed)
    joint = self.joint.init(fresh()[0], key=key, model_state=fresh()[1])
    batches = again()
    for _ in range(num_tasks * config.steps):
      joint, _ = self.joint.step(joint, next(batches))
      count()
    members = self.alone.init(
      fresh()[0],
      keys=jax.numpy.stack([key] * num_tasks),
      model_state=fresh()[1],
    )
    batches = again()
    for _ in range(config.steps):
      members, _ = self.alone.step(members, next(batches))
      count()
    models = [self.alone.member(members, t).params for t in range(num_tasks)]
    merged, chosen = self.merger.merge(params, models, model_state, seed)
    networks = {JOINT: joint.params, START: params, **merged}
    found = {f'chosen/{name}': x for name, x in chosen.items()}
    for split in ('validation', 'test'):
      for arm, its in networks.items():
        metrics = self.merger.evaluate(its, model_state, split)
        found[f'{split}/{arm}'] = [metrics[x] for x in self.columns]
      each = {
        task: self.merger.evaluate(its, model_state, split)
        for task, its in zip(self.suite.task_names, models, strict=True)
      }
      found[f'{split}/{ALONE}'] = [
        each[x.rpartition('/')[2]][x] for x in self.columns
      ]
    return found

  def rows(
    self, start: str, seed: int, arrays: Mapping[str, np.ndarray]
  ) -> Iterable[dict[str, Any]]:
    """A row of the table for each arm."""
    for arm in ARMS:
      if f'test/{arm}' in arrays:
        yield {'method': f'{start}.{arm}', 'seed': seed} | {
          f'{split}/{name}': float(x)
          for split in ('validation', 'test')
          for name, x in zip(
            self.columns, arrays[f'{split}/{arm}'], strict=True
          )
        }


def prepare(
  config: MergingConfig, console: rich.console.Console
) -> MergingSetting:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  suite = suites.find_with(config.suite, NETWORK)
  say = lambda text: console.print(text, markup=False)
  data = suite.read(config.data, config.batch_size, say)
  if not data.spread:
    raise ValueError(
      f'--suite={config.suite}: its tasks are on batches of their own; this '
      'study trains all on one.'
    )
  if len(merged_of(suite)) < 3:
    say(
      f'{suite.name}: AdaMerging is left out, which needs classes in every '
      'task.'
    )
  widths = Widths(
    hidden_sizes=config.hidden_sizes, head_sizes=config.head_sizes
  )
  problem = make_problem(suite, data, suite.network(NETWORK), widths)
  return MergingSetting(config, suite, data, problem)


def run(
  config: MergingConfig,
  setting: MergingSetting,
  console: rich.console.Console,
) -> None:
  """Runs the study."""
  suite = setting.suite
  values = dataclasses.asdict(config) | {
    'experiment': NAME,
    'tasks': list(suite.task_names),
    'merged': list(merged_of(suite)),
    **suite.facts(),
  }
  seeds.run_seeds(
    config,
    values,
    [(x, seed) for seed in range(config.seeds) for x in config.starts],
    setting.run,
    setting.rows,
    console,
    num_steps=setting.num_steps,
    data={suite.name: suite.digests(setting.data)},
  )


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: presets.parse_on_suite(
      MergingConfig, presets_of, prog='python -m experiments.merging'
    ),
    prepare,
    run,
  )
