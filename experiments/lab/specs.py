"""The runs of a comparison: every method with every seed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax

from experiments.lab import (
  diagnose,
  methods,
  optimizers,
  spaces,
  val_batches,
)
from experiments.lab.optimizers import make_schedule
from experiments.lab.problem import SINGLE, Problem
from experiments.lab.runs import RunSpec
from experiments.lab.settings import ComparisonConfig
from experiments.lab.suite import Data
from experiments.report.pictures import PREFIX as PICTURES
from mtljax.training import Layout, ShardedBatches, make_train_step


def methods_of(
  config: ComparisonConfig, tasks: Sequence[str]
) -> tuple[str, ...]:
  """What is compared: each task alone, if wanted, then the methods."""
  single = [f'{SINGLE}{task}' for task in tasks] if config.baselines else []
  return (*single, *methods.expand(config.methods, val_batches=True))


def make_specs(
  config: ComparisonConfig,
  name: str,
  problem: Problem,
  found: Data,
  layout: Layout | None,
  *,
  mode: str,
  held_out: val_batches.HeldOut | None = None,
  trial: spaces.Trial = spaces.DEFAULTS,
  seeds: Sequence[int] | None = None,
  traced: bool = False,
  probe: diagnose.Probe | None = None,
  pictures: Callable[[Data, Any], Mapping[str, Any]] | None = None,
) -> list[RunSpec]:
  """The runs of one method, all seeds sharing one compiled step.

  Args:
    config: the options.
    name: of the method, or ``single_<task>``.
    problem: loss and measurements.
    found: the data.
    layout: how a run is spread over devices; None: it is not.
    mode: how a step's T backward passes run.
    held_out: the training data of a method that learns on validation batches.
    trial: hyper-parameters of the method.
    seeds: those of the runs; None: as many as the options say.
    traced: whether they may share a program with runs of other trials.
    probe: measured inside training; see `diagnose.make_probes`.
    pictures: of the suite, kept of the first seed.
  """
  labels, num_tasks = problem.labels, len(problem.tasks)
  single = num_tasks == 1
  per_epoch = found.steps_per_epoch(config.batch_size, problem.tasks)
  steps = config.epochs * per_epoch
  examples = found.counted(config.batch_size, problem.tasks)
  plateau = optimizers.make_plateau(config, trial.rate * config.learning_rate)

  def build(hparams):
    """The train step from the trial's numbers, which may be traced."""
    options = trial.words | hparams
    schedule = make_schedule(
      config.schedule,
      options.pop('learning_rate'),
      steps,
      every=config.decay_every * per_epoch,
      factor=config.decay_factor,
    )
    optimizer = optimizers.with_weight_decay(
      config.optimizer, config.weight_decay
    )
    if plateau is not None:
      optimizer = plateau.scaled(optimizer)
    method = methods.make_method(
      'sum_losses' if single else name,
      num_tasks,
      labels,
      rho=options.pop('rho', config.rho),
      gramian_labels=problem.sharings.gramian_labels,
      weights=options.pop('weights', config.weights),
      scores=config.scores,
      optimizer=optimizer,
      learning_rate=schedule,
      options=options,
    )
    optimizers.check_takes(method, name, config.schedule)
    made = make_train_step(
      method,
      optax.identity() if method.info.is_optimizer else optimizer(schedule),
      problem.loss,
      has_state=True,
      route='auto' if single else config.route,
      mode=mode,
      layout=layout,
    )
    return made if held_out is None else val_batches.on_pairs(made)

  hparams = trial.numbers(config.learning_rate)
  step = build(hparams)
  rate = hparams['learning_rate']
  facts = {'learning_rate': rate} if config.tune else {}
  if held_out is not None:
    facts |= {'val_examples': held_out.num_examples}
    probe = probe and val_batches.of_training(probe)

  def make(seed):
    init_fn = lambda: problem.start(step, jax.random.key(seed))
    return init_fn() if layout is None else layout.make(init_fn)

  def batches(seed):
    size, augment = config.batch_size, config.augment
    if layout is None:
      batches_of = (found if held_out is None else held_out).batches
      return batches_of(size, seed, tasks=problem.tasks, augment=augment)
    rows = layout.local_rows(size)
    own = found.batches(size, seed, rows, augment=augment)
    return ShardedBatches(own, layout, size)

  def validate(state):
    return problem.evaluate(state, 'validation') | problem.probe(state)

  def draw(state):
    found_pictures = pictures(found, functools.partial(problem.predict, state))
    return {}, {PICTURES + key: x for key, x in found_pictures.items()}

  return [
    RunSpec(
      method=name,
      seed=seed,
      tasks=problem.tasks,
      step=step,
      init_fn=functools.partial(make, seed),
      batches_fn=functools.partial(batches, seed),
      validate_fn=validate,
      test_fn=lambda state: problem.evaluate(state, 'test'),
      measure_fn=draw if pictures is not None and seed == 0 else None,
      adapt_fn=plateau and plateau.after,
      probe_fn=probe,
      probe_every=config.diagnose_every,
      last_epochs=config.last_epochs,
      num_steps=steps,
      steps_per_epoch=per_epoch,
      batch_size=examples,
      facts=facts,
      build=build if traced else None,
      hparams=hparams if traced else {},
    )
    for seed in (range(config.seeds) if seeds is None else seeds)
  ]
