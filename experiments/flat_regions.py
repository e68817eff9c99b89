"""Tests the claims of task-based flat regions (F-MTL) on a data set.

  python -m experiments.flat_regions
  python -m experiments.flat_regions --dataset census

Every aggregator A is trained as it is, as F-A and in the controls (A for twice
the epochs, G-SAM + A, A on the SAM gradients, A with the length of F-A), over
several seeds; with few or wrong labels for one task; and over a range of radii.
The state with the best validation score is measured on test, once. To
``--out`` go ``config.json``, ``runs/<cell>/seed_<k>/``, ``results.csv``,
``cost.json``, ``summary.json`` and ``report.html`` with the verdicts on the
claims F1 to F10. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from typing import Any

import jax
import rich.console

from experiments import (
  _command,
  _conflict,
  _digits,
  _files,
  _flat_config,
  _flat_data,
  _flat_grid,
  _flat_probes,
  _flat_report,
  _identity,
  _presets,
  _sources,
  _study,
  report,
)
from experiments._flat_config import PRESETS, RESUMABLE, Config
from mtljax import models

COST_STEPS = 10


@dataclasses.dataclass(frozen=True)
class Study:
  """A study whose options are known to be good, and whose data is there."""

  entries: tuple[_flat_grid.Entry, ...]
  cells: tuple[_study.Cell, ...]
  source: _sources.Source
  data: dict[str, Any]


def make_model(
  config: Config, source: _sources.Source, tasks: tuple[str, ...]
) -> models.MultiTaskModel:
  """The network of a study for some tasks."""
  options: dict[str, Any] = {'num_classes': source.num_outputs}
  if config.model == 'multi_mlp':
    options['hidden_sizes'] = config.hidden_sizes
  return _digits.MODELS[config.model](tasks=tasks, **options)


def prepare(config: Config, console: rich.console.Console) -> Study:
  """Everything that can be refused, before anything is written or trained."""
  _flat_config.check(config)
  grid = _flat_grid.entries(config)

  def say(text):
    console.print(text, markup=False)

  source = _flat_data.load(config, say)
  other = _flat_data.load_other(config, source, say)
  variants = {
    name: _flat_data.corrupt(
      source, name, config.corrupted_task, config.data.seed
    )
    for name in dict.fromkeys(entry.variant for entry in grid)
  }
  problems, probes = {}, {}
  for tasks in dict.fromkeys(entry.tasks for entry in grid):
    model = make_model(config, source, tasks)
    problems[tasks] = _digits.make_problem(
      model,
      source.loaded,
      functools.partial(
        _flat_data.labelled_loss, example_losses=source.example_losses
      ),
      source.metrics_of,
    )
    probes[tasks] = _flat_probes.make_probes(
      problems[tasks],
      model,
      source,
      other,
      batch_size=config.batch_size,
      num_batches=config.probe_batches,
    )
  conflict = _conflict.make_probes(config, problems)
  steps = _flat_grid.Steps(config, problems)
  for entry in grid:
    steps.get(entry)  # refuses what cannot be built
  cells = [
    make_cell(
      config,
      entry,
      seed,
      steps,
      problems[entry.tasks],
      probes[entry.tasks],
      variants[entry.variant],
      conflict.get(entry.tasks),
    )
    for entry in grid
    for seed in range(config.seeds)
  ]
  found = {
    source.name: _identity.digests(source.loaded.splits),
    'other': _identity.digests({config.out_of_data: other}),
  }
  return Study(grid, tuple(cells), source, found)


def make_cell(
  config: Config,
  entry: _flat_grid.Entry,
  seed: int,
  steps: _flat_grid.Steps,
  problem: _digits.Problem,
  probes: _flat_probes.Probes,
  source: _sources.Source,
  conflict: _conflict.Probe | None,
) -> _study.Cell:
  """One run. Runs of one seed share initialisation and order of the data."""
  train = source.loaded.splits['train']
  step = steps.get(entry)

  def init():
    init_key, key = jax.random.split(jax.random.key(seed))
    params, model_state = problem.init(init_key)
    return step.init(params, key=key, model_state=model_state)

  def validate(state):
    found = problem.evaluate(state, 'validation')
    return found | probes.conflict(state, train)

  def measure(state):
    scalars, arrays = probes.measure(state, train)
    if seed == 0 and not entry.sweep and entry.variant == _flat_data.MAIN:
      arrays |= probes.surface(state, train)
    return scalars, arrays

  steps_per_epoch = source.steps_per_epoch(config.batch_size)
  epochs = 2 * config.epochs if entry.form == '2x' else config.epochs
  return _study.Cell(
    method=entry.name,
    seed=seed,
    tasks=entry.tasks,
    step=step,
    init_fn=init,
    batches_fn=functools.partial(source.batches, config.batch_size, seed),
    validate_fn=validate,
    test_fn=lambda state: problem.evaluate(state, 'test'),
    measure_fn=measure,
    probe_fn=conflict,
    probe_every=config.diagnose_every,
    num_steps=epochs * steps_per_epoch,
    steps_per_epoch=steps_per_epoch,
    facts=entry.facts(),
  )


def measure_cost(config: Config, study: Study) -> dict[str, Any]:
  """Milliseconds a step of A and of F-A, by turns, a number a round."""
  wanted = {
    (entry.base, entry.form): entry
    for entry in study.entries
    if entry.variant == _flat_data.MAIN
    and not entry.sweep
    and entry.form in ('plain', 'flat')
  }
  first = {
    (cell.method, cell.seed): cell for cell in study.cells if cell.seed == 0
  }
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


def _timed(cell: _study.Cell):
  """A function that takes some steps and returns the milliseconds of one."""
  batches = cell.batches_fn()
  ready = [jax.device_put(next(batches)) for _ in range(COST_STEPS)]
  state = cell.init_fn()
  state, _ = jax.block_until_ready(cell.step.step(state, ready[0]))

  def run():
    nonlocal state
    start = time.perf_counter()
    for batch in ready:
      state, _ = cell.step.step(state, batch)
    jax.block_until_ready(state.params)
    return (time.perf_counter() - start) / COST_STEPS * 1e3

  return run


def run(config: Config, study: Study, console: rich.console.Console) -> int:
  """Runs the study; returns how many runs failed."""
  start = time.perf_counter()
  values = dataclasses.asdict(config)
  names = list(dict.fromkeys(cell.method for cell in study.cells))
  values |= {
    'experiment': 'flat_regions',
    'tasks': list(study.source.tasks),
    'score': study.source.score,
    'cells': names,
  }
  inside = _identity.kept(config)
  _identity.open_study(
    config,
    values,
    ignore=(*RESUMABLE, 'cells'),
    data=study.data,
    inside=inside,
    runs=lambda: _study.endings(config.out, study.cells),
  )
  failed = _study.run_grid(
    config.out,
    study.cells,
    console,
    inside=inside,
    progress=config.progress,
    log_every=config.log_every,
    batch_size=config.batch_size,
    select=study.source.select,
    tensorboard=config.tensorboard,
  )
  cost = config.out / 'cost.json'
  costs = _read_json(cost)
  if costs.keys() < set(config.methods):
    costs = measure_cost(config, study)
    _files.write_json(cost, costs)
  summary = _flat_report.write_report(config.out)
  _flat_report.print_tables(summary, console)
  report.print_end(config.out, start, console)
  return failed


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    return dict(_files.read_json(path))
  except (OSError, ValueError, TypeError):
    return {}


def main() -> None:
  """The command line."""
  _command.run_command(
    lambda: _flat_config.complete(
      _presets.parse(Config, PRESETS, prog='python -m experiments.flat_regions')
    ),
    prepare,
    run,
  )


if __name__ == '__main__':
  main()
