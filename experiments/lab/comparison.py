"""Compares methods on a suite: each task alone, then every method."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence

import jax
import rich.console

from experiments.lab import (
  command,
  devices,
  diagnose,
  floors,
  forecast,
  identity,
  methods,
  optimizers,
  presets,
  spaces,
  study,
  tuning,
  val_batches,
)
from experiments.lab.problem import SINGLE, make_problem, trained_on
from experiments.lab.settings import (
  ComparisonConfig,
  check,
  complete,
  configs,
)
from experiments.lab.specs import make_specs, methods_of
from experiments.lab.suite import Suite, Widths
from experiments.report.console import make_console
from mtljax import models
from mtljax.models import layers


def prepare(
  config: ComparisonConfig,
  suite: Suite,
  name: str,
  console: rich.console.Console,
) -> study.Study:
  """A comparison, all of whose options are checked before anything is written.

  Args:
    config: the options, `complete`.
    suite: what is trained on.
    name: of the experiment.
    console: where slow work is announced.
  """
  check(config, suite)
  suite = suite.with_tasks(config.tasks)
  widths = Widths(
    hidden_sizes=config.hidden_sizes,
    head_sizes=config.head_sizes,
    expert_sizes=config.expert_sizes,
  )
  with devices.first_process_first():
    found = suite.read(
      config.data,
      config.batch_size,
      lambda text: console.print(text, markup=False),
      selects=not config.last_epochs,
    )
  if config.augment and found.augment is None:
    raise ValueError(
      f'--augment: the suite {suite.name} knows no augmentation; leave it out.'
    )
  for option in ('layout', 'diagnose'):
    value = getattr(config, option)
    if not found.spread and value not in ('none', ()):
      raise ValueError(
        f'--{option} {value}: the tasks of the suite {suite.name} are on '
        'batches of their own, some of them absent in a step; leave it out.'
      )
  layout = devices.make_layout(config.layout)
  if layout is not None:
    layout.local_rows(config.batch_size)
  # Of each method its tasks and its network.
  trained = {
    x: (
      trained_on(x, config.tasks),
      config.baseline_model if x.startswith(SINGLE) else config.model,
    )
    for x in methods_of(config, config.tasks)
  }
  problems = {
    (tasks, model): make_problem(
      suite,
      found,
      suite.network(model),
      widths,
      tasks=tasks,
      shared=config.shared if model == config.model else '',
    )
    for tasks, model in dict.fromkeys(trained.values())
  }
  widest = max(problems, key=lambda x: (x[1] == config.model, len(x[0])))
  sharings = problems[widest].sharings
  console.print(_in_words(sharings), markup=False)
  probes = diagnose.make_probes(config, problems)
  learners = [
    method
    for method, (tasks, _) in trained.items()
    if method in methods.learner_names() and len(tasks) > 1
  ]
  held_out = None
  if learners:
    held_out = val_batches.hold_out(
      found,
      config.val_share,
      config.data.seed,
      config.batch_size,
      config.tasks,
    )

  # On a plateau a rate decides more than numbers do.
  falls = config.schedule == optimizers.PLATEAU

  def specs_of(method, trial=spaces.DEFAULTS, seeds=None):
    key = trained[method]
    return make_specs(
      config,
      method,
      problems[key],
      found,
      layout,
      mode=suite.network(key[1]).mode_of(config.mode, config.route),
      held_out=held_out if method in learners else None,
      trial=trial,
      seeds=seeds,
      traced=seeds is not None and layout is None and not falls,
      probe=probes.get(key),
      pictures=None if layout is not None else suite.pictures,
    )

  mode = sweep_mode(config)

  def groups_of(chosen):
    by_method = [
      tuple(specs_of(x, chosen.get(x, spaces.DEFAULTS))) for x in trained
    ]
    if mode != 'loop':
      return tuple(by_method)
    return tuple((run,) for run in itertools.chain.from_iterable(by_method))

  def tune(console, **options):
    num_tasks = {method: len(tasks) for method, (tasks, _) in trained.items()}
    return groups_of(
      tuning.search(
        config.out,
        {
          x: spaces.draw_trials(x, n, config.tune) for x, n in num_tasks.items()
        },
        specs_of,
        console,
        rungs=tuning.make_rungs(config.tune_by, config.tune, config.epochs),
        num_seeds=config.tune_seeds,
        mode=mode,
        **options,
      )
    )

  steps_per_epoch = found.steps_per_epoch(config.batch_size)
  digests = suite.digests(found)
  known = floors.kept(config.out, suite, digests)
  return study.Study(
    name=name,
    tasks=config.tasks,
    groups=groups_of({}),
    facts=suite.facts(found, known)
    | {
      'num_params': sharings.num_params,
      'num_shared': sharings.num_shared,
      'num_gramian': sharings.num_gramian,
    },
    data={suite.name: digests},
    options={
      'num_steps': config.epochs * steps_per_epoch,
      'steps_per_epoch': steps_per_epoch,
      'log_every': config.log_every,
      'batch_size': config.batch_size,
      'select': suite.score_of,
      'tensorboard': config.tensorboard,
    },
    sweep=mode,
    kept=identity.kept(dataclasses.replace(config, sweep=mode)),
    tune=tune if config.tune else None,
  )


def _in_words(found: models.Sharings) -> str:
  text = (
    f'--shared {found.name} ({found.about}): {found.num_shared:,} of '
    f'{found.num_params:,} parameters are shared'
  )
  if found.num_gramian != found.num_shared:
    text += f', Gramians are taken over {found.num_gramian:,}'
  return text


def sweep_mode(config: ComparisonConfig) -> str:
  """How the seeds of a method run: what is asked for, or the fastest."""
  if config.sweep != 'auto':
    return config.sweep
  if config.layout != 'none':
    return 'loop'
  return layers.default_sweep_mode(jax.default_backend())


def start(config: ComparisonConfig) -> rich.console.Console:
  """Joins the other processes, and gives the console of this one."""
  devices.start(config.layout, config.distributed)
  console = make_console()
  console.quiet = not devices.is_first()
  return console


def main(
  suite: Suite,
  name: str,
  *,
  argv: Sequence[str] | None = None,
  typed: str = '',
) -> None:
  """The command line of a comparison on a suite.

  Args:
    suite: what is trained on.
    name: of the experiment, and of its folder.
    argv: its arguments; None: those of this process.
    typed: what stands after ``python -m experiments.``; by default the name.
  """
  defaults = configs(suite, out=pathlib.Path('results') / name)
  command.run_command(
    lambda: complete(
      presets.parse(
        ComparisonConfig,
        defaults,
        prog=f'python -m experiments.{typed or name}',
        description=f'Compares multi-task methods on {suite.title}.',
        argv=argv,
      ),
      suite,
    ),
    lambda config, console: prepare(config, suite, name, console),
    forecast.show_or_run,
    start=start,
  )
