"""How curves are trained: a run a preference, or one network for all."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax as mtl
from experiments.lab.problem import Problem, make_problem, over_batches
from experiments.lab.suite import Data, Network, Suite, Widths
from experiments.studies.tradeoffs.claims import NETWORKS
from mtljax import models
from mtljax.training import TrainState, TrainStep, make_train_step

#: Of the steps, those in which Pareto MTL descends its constraints alone.
WARMUP = 0.1


def passes(curve: str, num_tasks: int) -> int:
  """Backward passes that a step of a curve takes."""
  return num_tasks + 1 if curve in ('epo', 'pmtl', 'pmgda') else 1


def num_steps(curve: str, steps: int, grid: np.ndarray) -> int:
  """Steps of each run, so that all curves take as many backward passes.

  Args:
    curve: its name.
    steps: those of a run of the grid.
    grid: the preferences, shape ``(K, T)``.
  """
  if curve in NETWORKS:
    return steps * len(grid)
  return max(1, steps // passes(curve, grid.shape[1]))


def make_method(
  curve: str, preference: Any, grid: np.ndarray, labels: Any, steps: int
) -> mtl.Aggregator:
  """The method of a curve at one preference, which may be traced.

  Args:
    curve: one of ``RUNS``.
    preference: on the simplex; a large entry asks for a small loss.
    grid: all preferences, shape ``(K, T)``.
    labels: of the parameters.
    steps: of the run.
  """
  num_tasks = grid.shape[1]
  ray = mtl.pareto.ray(preference)
  options: dict[str, Any] = {
    'fixed': {'weights': preference},
    'cosmos': {'preference': preference},
    'pbi': {'preference': ray},
    'epo': {'preference': preference},
    'pmgda': {'preference': ray},
    'pmtl': {
      'preference': ray,
      'others': mtl.pareto.ray(grid),
      'warmup_steps': int(WARMUP * steps),
    },
  }[curve]
  # Heads follow their own losses, but where negative weights cannot be.
  return mtl.get_method(curve)(num_tasks, labels=labels, **options)


def make_step(
  curve: str,
  problem: Problem,
  grid: np.ndarray,
  steps: int,
  learning_rate: float,
  mode: str,
  hparams: Mapping[str, Any],
) -> TrainStep:
  """The train step of one preference."""
  schedule = optax.cosine_decay_schedule(learning_rate, steps)
  return make_train_step(
    make_method(curve, hparams['preference'], grid, problem.labels, steps),
    optax.adam(schedule),
    problem.loss,
    has_state=True,
    mode=mode,
  )


@dataclasses.dataclass(frozen=True, eq=False)
class OneNetwork:
  """A network that reads the preference, which is drawn anew at every step.

  Attributes:
    how: as in `mtljax.models.with_preference`.
    problem: of the network, its inputs with equal shares.
    suite: the tasks.
    data: their data.
    grid: the preferences that it is measured at, shape ``(K, T)``.
    cosine_weight: of COSMOS, with ``how='input'``.
    concentration: of the preferences that are drawn.
  """

  how: str
  problem: Problem
  suite: Suite
  data: Data
  grid: np.ndarray
  cosine_weight: float = 1.0
  concentration: float = 1.0

  def loss(self, params, batch, model_state, key):
    """The losses times their weights, shape ``(T,)``, and the next state."""
    model, num_tasks = self.problem.model, self.grid.shape[1]
    key, draw_key = jax.random.split(key)
    preference = mtl.pareto.draw(
      draw_key, num_tasks, concentration=self.concentration
    )
    features, model_state = model.apply_trunk(
      params,
      model_state,
      (self.data.inputs(batch), preference),
      train=True,
      key=key,
    )
    losses = jnp.stack(
      [
        task.loss(
          model.apply_head(t, params, features, train=True, key=key), batch
        )[0]
        for t, task in enumerate(self.suite.tasks)
      ]
    )
    weights = preference
    if self.how == 'input':
      rule = mtl.weightings.cosmos(
        preference=preference, cosine_weight=self.cosine_weight
      )
      stats = mtl.TaskStats(losses=jax.lax.stop_gradient(losses))
      weights, _ = rule.update(stats, rule.init(num_tasks))
    weighted = jax.lax.stop_gradient(weights) * losses
    return weighted, (model_state, {})

  def make_step(self, steps: int, learning_rate: float) -> TrainStep:
    """The train step, of one backward pass."""
    schedule = optax.cosine_decay_schedule(learning_rate, steps)
    return make_train_step(
      mtl.sum_losses(self.grid.shape[1]),
      optax.adam(schedule),
      self.loss,
      has_state=True,
    )

  @functools.cached_property
  def _measure(self) -> Callable[..., dict[str, Any]]:
    model, tasks = self.problem.model, self.suite.tasks

    @jax.jit
    def measure(preference, params, model_state, batch):
      x = self.data.inputs(batch), preference
      outputs = model.apply(params, model_state, x)
      found = {}
      for task, output in zip(tasks, outputs, strict=True):
        found |= task.measure(output, batch)
      return found

    return measure

  def evaluate(self, state: TrainState, split: str) -> dict[str, Any]:
    """The metrics at every preference, as ``<metric>/<task>@<k>``."""
    found = {}
    for k, preference in enumerate(self.grid):
      measure = functools.partial(
        self._measure,
        preference.astype(np.float32),
        state.params,
        state.model_state,
      )
      values = over_batches(
        measure, self.data.splits[split], self.data.eval_batch
      )
      found |= {f'{name}@{k}': x for name, x in values.items()}
    return found


def make_network(
  how: str,
  suite: Suite,
  data: Data,
  network: Network,
  widths: Widths,
  grid: np.ndarray,
  concentration: float,
) -> OneNetwork:
  """One network for the whole curve, from one of the suite."""
  equal = np.full(grid.shape[1], 1 / grid.shape[1], np.float32)
  conditioned = dataclasses.replace(
    network,
    make=lambda tasks, widths: models.with_preference(
      network.make(tasks, widths), how
    ),
  )
  paired = dataclasses.replace(
    data, inputs=lambda batch: (data.inputs(batch), jnp.asarray(equal))
  )
  problem = make_problem(suite, paired, conditioned, widths)
  return OneNetwork(
    how, problem, suite, data, grid, concentration=concentration
  )
