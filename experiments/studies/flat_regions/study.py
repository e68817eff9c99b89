"""Tests the claims of task-based flat regions (F-MTL) on a suite.

  python -m experiments.flat_regions
  python -m experiments.flat_regions --suite census

Every aggregator A is trained as it is, as F-A and in the controls (A for twice
the epochs, G-SAM + A, A on the SAM gradients, A with the length of F-A), over
several seeds; with few or wrong labels for one task; and over a range of radii.
The state with the best validation score is measured on test, once. To
``--out`` go ``config.json``, ``runs/<cell>/seed_<k>/``, ``results.csv``,
``cost.json``, ``summary.json`` and ``report.html`` with the verdicts on the
claims F1 to F10. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import rich.console

from experiments.lab import (
  command,
  diagnose,
  identity,
  presets,
  spaces,
  study,
  tuning,
)
from experiments.lab.problem import Problem, make_problem
from experiments.lab.runs import RunSpec
from experiments.lab.suite import Data, Widths
from experiments.report import files
from experiments.studies.flat_regions.config import (
  FlatRegionsConfig,
  check,
  complete,
  presets_of,
  suite_of,
)
from experiments.studies.flat_regions.data import (
  MAIN,
  check_labels,
  corrupt,
  labelled_loss,
)
from experiments.studies.flat_regions.grid import Entry, Steps, entries
from experiments.studies.flat_regions.probes import Probes, make_probes
from mtljax.training import TrainStep

NAME = 'flat_regions'
COST_STEPS = 10


def prepare(
  config: FlatRegionsConfig, console: rich.console.Console
) -> study.Study:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  suite, grid = suite_of(config), entries(config)

  def say(text):
    console.print(text, markup=False)

  clean = suite.read(config.data, config.batch_size, say)
  check_labels(suite, clean)
  other = suite.others[config.out_of_data](clean, config.data, say)
  (corrupted,) = suite.tasks_of([config.corrupted_task])
  variants = {
    name: corrupt(clean, name, corrupted, config.data.seed)
    for name in dict.fromkeys(entry.variant for entry in grid)
  }
  problems, probes = {}, {}
  for tasks in dict.fromkeys(entry.tasks for entry in grid):
    problems[tasks] = make_problem(
      suite,
      clean,
      suite.network(config.model),
      Widths(hidden_sizes=config.hidden_sizes),
      tasks=tasks,
      loss_of=labelled_loss,
    )
    probes[tasks] = make_probes(
      problems[tasks],
      suite,
      clean,
      other,
      batch_size=config.batch_size,
      num_batches=config.probe_batches,
    )
  diagnosed = diagnose.make_probes(config, problems)
  steps = Steps(config, problems)
  by_name = {entry.name: entry for entry in grid}

  def specs_of(name, trial=spaces.DEFAULTS, seeds=range(config.seeds)):
    entry = by_name[name]
    return [
      make_spec(
        config,
        entry,
        seed,
        steps.get(entry, trial.rate * config.learning_rate),
        problems[entry.tasks],
        probes[entry.tasks],
        variants[entry.variant],
        diagnosed.get(entry.tasks),
      )
      for seed in seeds
    ]

  def groups_of(chosen):
    return tuple(
      (run,)
      for name in by_name
      for run in specs_of(name, chosen.get(name, spaces.DEFAULTS))
    )

  def tune(console, **options):
    trials = [
      spaces.Trial(rate / config.learning_rate)
      for rate in config.learning_rates
    ]
    return groups_of(
      tuning.search(
        config.out,
        dict.fromkeys(by_name, trials),
        specs_of,
        console,
        rungs=tuning.make_rungs('random', len(trials), config.epochs),
        mode='loop',
        **options,
      )
    )

  groups = groups_of({})
  specs = [run for group in groups for run in group]
  return study.Study(
    name=NAME,
    tasks=suite.task_names,
    groups=groups,
    facts={
      'score': suite.tasks[0].score.name,
      'cells': list(dict.fromkeys(spec.method for spec in specs)),
    },
    growing=('cells', 'methods'),
    data={
      suite.name: suite.digests(clean),
      'other': identity.digests({config.out_of_data: other}),
    },
    options={
      'log_every': config.log_every,
      'batch_size': config.batch_size,
      'select': suite.score_of,
      'tensorboard': config.tensorboard,
    },
    tune=tune if config.learning_rates else None,
    after=lambda: measure_costs(config, grid, specs),
  )


def make_spec(
  config: FlatRegionsConfig,
  entry: Entry,
  seed: int,
  step: TrainStep,
  problem: Problem,
  probes: Probes,
  data: Data,
  probe: diagnose.Probe | None,
) -> RunSpec:
  """One run. Runs of one seed share initialisation and order of the data."""
  train = data.splits['train']

  def validate(state):
    found = problem.evaluate(state, 'validation')
    return found | probes.conflict(state, train)

  def measure(state):
    scalars, arrays = probes.measure(state, train)
    if seed == 0 and not entry.sweep and entry.variant == MAIN:
      arrays |= probes.surface(state, train)
    return scalars, arrays

  steps_per_epoch = data.steps_per_epoch(config.batch_size)
  epochs = 2 * config.epochs if entry.form == '2x' else config.epochs
  return RunSpec(
    method=entry.name,
    seed=seed,
    tasks=entry.tasks,
    step=step,
    init_fn=functools.partial(problem.start, step, jax.random.key(seed)),
    batches_fn=functools.partial(data.batches, config.batch_size, seed),
    validate_fn=validate,
    test_fn=lambda state: problem.evaluate(state, 'test'),
    measure_fn=measure,
    probe_fn=probe,
    probe_every=config.diagnose_every,
    num_steps=epochs * steps_per_epoch,
    steps_per_epoch=steps_per_epoch,
    facts=entry.facts(),
  )


def measure_cost(
  config: FlatRegionsConfig, grid: Sequence[Entry], specs: Sequence[RunSpec]
) -> dict[str, Any]:
  """Milliseconds a step of A and of F-A, by turns, a number a round."""
  wanted = {
    (entry.base, entry.form): entry
    for entry in grid
    if entry.variant == MAIN
    and not entry.sweep
    and entry.form in ('plain', 'flat')
  }
  first = {(spec.method, spec.seed): spec for spec in specs if spec.seed == 0}
  costs: dict[str, Any] = {}
  for base in config.methods:
    if (base, 'flat') not in wanted:
      continue
    runners = {
      form: _timed(first[wanted[base, form].name, 0])
      for form in ('plain', 'flat')
    }
    found: dict[str, list[float]] = {'plain': [], 'flat': []}
    for _ in range(config.cost_rounds):
      for form, runner in runners.items():
        found[form].append(round(runner(), 4))
    costs[base] = found
  return costs


def _timed(spec: RunSpec):
  """A function that takes some steps and returns the milliseconds of one."""
  batches = spec.batches_fn()
  ready = [jax.device_put(next(batches)) for _ in range(COST_STEPS)]
  state = spec.init_fn()
  state, _ = jax.block_until_ready(spec.step.step(state, ready[0]))

  def run():
    nonlocal state
    start = time.perf_counter()
    for batch in ready:
      state, _ = spec.step.step(state, batch)
    jax.block_until_ready(state.params)
    return (time.perf_counter() - start) / COST_STEPS * 1e3

  return run


def measure_costs(
  config: FlatRegionsConfig, grid: Sequence[Entry], specs: Sequence[RunSpec]
) -> None:
  """Writes ``cost.json``, unless it has all methods already."""
  path = config.out / 'cost.json'
  if _read_json(path).keys() < set(config.methods):
    files.write_json(path, measure_cost(config, grid, specs))


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    return dict(files.read_json(path))
  except (OSError, ValueError, TypeError):
    return {}


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: complete(
      presets.parse_on_suite(
        FlatRegionsConfig, presets_of, prog='python -m experiments.flat_regions'
      )
    ),
    prepare,
    study.run,
  )
