"""A study: its runs, what config.json says of it, and how it is done."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import rich.console

from experiments.lab import devices, identity, options, runs
from experiments.report import write_report
from experiments.report.console import print_end


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
  """A study whose options are known to be good, and whose data is there.

  Attributes:
    name: as in ``python -m experiments.<name>``, and in ``config.json``.
    tasks: its tasks.
    groups: its runs; those of a group are trained in one program.
    facts: what ``config.json`` says besides the options.
    growing: facts that may be others when the study goes on.
    data: digests of the splits, by the name of the data set.
    options: of `runs.spec_steps`, the same for all runs.
    sweep: how the runs of a group are trained together.
    kept: options that a run keeps from its beginning to its end, resolved;
      None: as they are.
    before: slow work that the runs need, done if one is left to train.
    tune: makes the groups again with hyper-parameters that it finds first, of
      the same runs; called if one is left to train, with the console and the
      options of `runs.run_grid`.
    after: what is done once all have been trained, before the report.
  """

  name: str
  tasks: tuple[str, ...]
  groups: tuple[tuple[runs.RunSpec, ...], ...]
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  growing: tuple[str, ...] = ('methods',)
  data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  sweep: str = 'loop'
  kept: Mapping[str, str] | None = None
  before: Callable[[], Any] | None = None
  tune: Callable[..., tuple[tuple[runs.RunSpec, ...], ...]] | None = None
  after: Callable[[], Any] | None = None

  @property
  def runs(self) -> tuple[runs.RunSpec, ...]:
    """All runs, in order."""
    return tuple(run for group in self.groups for run in group)

  @property
  def methods(self) -> tuple[str, ...]:
    """The methods of the runs, once each, in order."""
    return tuple(dict.fromkeys(run.method for run in self.runs))


def run(
  config: options.Options, study: Study, console: rich.console.Console
) -> int:
  """Runs a study, or goes on with it, and writes its report.

  Args:
    config: its options.
    study: what to run.
    console: where progress and the tables go.

  Returns:
    How many runs failed.
  """
  start = time.perf_counter()
  inside = identity.kept(config) if study.kept is None else dict(study.kept)
  values = dataclasses.asdict(config) | {
    'experiment': study.name,
    'tasks': list(study.tasks),
    'methods': study.methods,
    **study.facts,
  }
  with devices.first_process_first():
    identity.open_study(
      config,
      values,
      growing=study.growing,
      data=study.data,
      inside=inside,
      runs=lambda: runs.endings(config.out, study.runs),
      resume=config.resume or not devices.is_first(),
    )
  left = any(runs.finished(config.out, x) is None for x in study.runs)
  if left and study.before is not None:
    study.before()
  shown: dict[str, Any] = {'inside': inside, 'progress': config.progress}
  shown |= study.options
  groups = study.groups
  if left and study.tune is not None:
    groups = study.tune(console, **shown)
  failed = runs.run_grid(config.out, groups, console, mode=study.sweep, **shown)
  if not devices.is_first():
    return failed
  if study.after is not None:
    study.after()
  write_report(config.out, console)
  print_end(config.out, start, console)
  return failed
