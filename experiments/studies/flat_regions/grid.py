"""The grid of the study: which forms of which methods, on which data."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import mtljax as mtl
from experiments.lab import methods
from experiments.lab.optimizers import OPTIMIZERS
from experiments.lab.problem import SINGLE, trained_on
from experiments.studies.flat_regions.config import (
  ASCENTS,
  FlatRegionsConfig,
  suite_of,
)
from experiments.studies.flat_regions.data import MAIN, variants
from experiments.studies.flat_regions.norm_matched import norm_matched
from mtljax.training import make_train_step
from mtljax.training.step.train_step import TrainStep

# Forms that the corrupted variants are trained in.
CORRUPTED_FORMS = ('plain', '2x', 'flat')
# A linear method gives the same update for these as for flat.
SAME_IF_LINEAR = ('direct', 'direct_matched')
ABLATIONS = ('second', 'each')
WITHOUT_RADIUS = ('plain', '2x')


class Entry(NamedTuple):
  """One cell of the grid, all seeds of it.

  Attributes:
    variant: the data, see `data.variants`.
    base: the method A, or ``'single_<task>'``.
    form: how it is trained, see ``Config.forms``.
    ascent: ``'plain'`` or ``'adaptive'``.
    rho: the radius.
    all_tasks: those of the suite.
    sweep: whether it belongs to the sweep of radii.
  """

  variant: str
  base: str
  form: str
  ascent: str
  rho: float
  all_tasks: tuple[str, ...]
  sweep: bool = False

  @property
  def name(self) -> str:
    """Its name in the tables and as a folder."""
    name = {'plain': self.base, '2x': f'{self.base}_2x'}.get(
      self.form, f'{self.form}_{self.base}'
    )
    if self.sweep:
      return f'rho_{self.rho:g}_{self.ascent}.{name}'
    return name if self.variant == MAIN else f'{self.variant}.{name}'

  @property
  def tasks(self) -> tuple[str, ...]:
    """The tasks that it is trained on."""
    return trained_on(self.base, self.all_tasks)

  def facts(self) -> dict[str, Any]:
    """What its rows say of it."""
    variant = 'sweep' if self.sweep else self.variant
    radius = 0.0 if self.form in WITHOUT_RADIUS else self.rho
    return {
      'variant': variant,
      'base': self.base,
      'form': self.form,
      'ascent': self.ascent,
      'rho': radius,
    }


def entries(config: FlatRegionsConfig) -> tuple[Entry, ...]:
  """The whole grid, in the order in which it is trained."""
  tasks = suite_of(config).task_names

  def make(variant, base, form, **kwargs):
    options = {'ascent': config.ascent, 'rho': config.rho} | kwargs
    return Entry(variant, base, form, all_tasks=tasks, **options)

  def listed() -> Iterator[Entry]:
    if config.single_task:
      for task in tasks:
        yield make(MAIN, f'{SINGLE}{task}', 'plain')
        yield make(MAIN, f'{SINGLE}{task}', 'sam')
    for base in config.methods:
      for form in config.forms:
        if form in ABLATIONS and base not in config.ablation_methods:
          continue
        if not (form in SAME_IF_LINEAR and base == 'mean'):
          yield make(MAIN, base, form)
    for variant in variants(config)[1:]:
      for base in config.methods:
        for form in CORRUPTED_FORMS:
          if form in config.forms:
            yield make(variant, base, form)
    for base in config.sweep_methods:
      for ascent in ASCENTS:
        for rho in config.sweep_rho:
          yield make(MAIN, base, 'flat', ascent=ascent, rho=rho, sweep=True)

  return tuple(dict.fromkeys(listed()))


def make_method(
  config: FlatRegionsConfig, entry: Entry, labels: Any, rho: Any
) -> mtl.Aggregator:
  """The aggregator of an entry, with a radius that may be traced."""
  num_tasks = len(entry.tasks)
  if num_tasks == 1:
    base = mtl.sum_losses(1, labels=labels)
  else:
    base = methods.make_method(entry.base, num_tasks, labels, rho=0.0)

  def flat(aggregation):
    return mtl.flat_regions(
      base,
      rho_shared=rho,
      aggregation=aggregation,
      ascent=entry.ascent,
      norms=config.norms,
    )

  match entry.form:
    case 'plain' | '2x':
      return base
    case 'sam':
      return mtl.sam(base, rho=rho, ascent=entry.ascent)
    case 'flat':
      return flat('separate')
    case 'matched':
      return norm_matched(base, flat('separate'))
    case 'direct_matched':
      return norm_matched(flat('direct'), flat('separate'))
    case form:
      return flat(form)


class Steps:
  """The compiled steps: one for all radii, lengths, seeds and variants."""

  def __init__(
    self, config: FlatRegionsConfig, problems: dict[tuple[str, ...], Any]
  ):
    self._config = config
    self._problems = problems
    network = suite_of(config).network(config.model)
    self._mode = network.mode_of(config.mode)
    self._made: dict[Any, TrainStep] = {}

  def get(self, entry: Entry, rate: float) -> TrainStep:
    """The step of an entry; radius and rate are arguments of the program."""
    config = self._config
    form = 'plain' if entry.form == '2x' else entry.form
    key = (entry.base, form, entry.ascent if form != 'plain' else '')
    if key not in self._made:
      problem = self._problems[entry.tasks]

      def build(rho, rate):
        return make_train_step(
          make_method(config, entry, problem.labels, rho),
          OPTIMIZERS[config.optimizer](rate),
          problem.loss,
          has_state=True,
          mode=self._mode,
        )

      @functools.partial(jax.jit, donate_argnums=0)
      def step(state, batch, rho, rate):
        return build(rho, rate).step(state, batch)

      first = build(entry.rho, rate)
      self._made[key] = TrainStep(first.init, step, first.route)
    init, step, route = self._made[key]
    numbers = jnp.float32(entry.rho), jnp.float32(rate)
    take = lambda state, batch: step(state, batch, *numbers)
    return TrainStep(init, take, route)
