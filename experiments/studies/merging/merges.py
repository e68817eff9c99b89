"""From networks of single tasks to one, each way with its own choices."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import mtljax as mtl
from experiments.lab.problem import Problem, over_batches
from experiments.lab.suite import Data, Suite
from experiments.studies.merging.claims import (
  ADAMERGING,
  ARITHMETIC,
  FIXED,
  MEAN,
  MERGED,
  TIES,
)
from mtljax import data as readers
from mtljax import merging

#: What is chosen from on validation, as many by TIES as by task arithmetic.
SCALES = tuple(round(0.1 * k, 1) for k in range(1, 21))
#: Of task arithmetic for eight tasks, by its authors.
AUTHORS_SCALE = 0.3
#: Kept of a task vector by TIES, by its authors.
DENSITY = 0.2


def merged_of(suite: Suite) -> tuple[str, ...]:
  """Those of ``MERGED`` that fit the tasks.

  AdaMerging descends on the entropy of classes: it needs some in every task.
  """
  classes = all(task.num_classes is not None for task in suite.tasks)
  return MERGED if classes else (ARITHMETIC, TIES)


@dataclasses.dataclass(frozen=True, eq=False)
class Merger:
  """Merges networks, and measures them.

  Attributes:
    suite: the tasks.
    data: their data.
    problem: the network.
    batch_size: examples a step of AdaMerging.
    num_steps: of AdaMerging.
  """

  suite: Suite
  data: Data
  problem: Problem
  batch_size: int
  num_steps: int

  def evaluate(
    self, params: Any, model_state: Any, split: str
  ) -> dict[str, float]:
    """The metrics over a split."""
    measure = functools.partial(self.problem.measure, params, model_state)
    arrays = self.data.splits[split]
    found = over_batches(measure, arrays, self.data.eval_batch)
    return {name: float(x) for name, x in found.items()}

  def merge(
    self, base: Any, models: Sequence[Any], model_state: Any, seed: int
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """The merged networks by their arms, and what was chosen.

    Args:
      base: the parameters that all began at.
      models: those of each task's network.
      model_state: of the network.
      seed: of the order of inputs that AdaMerging sees.
    """
    models = list(models)
    found = {
      MEAN: self._arithmetic(base, models, 1 / len(models)),
      FIXED: self._arithmetic(base, models, AUTHORS_SCALE),
    }
    chosen: dict[str, Any] = {}
    for arm, make in ((ARITHMETIC, self._arithmetic), (TIES, self._ties)):
      scale = self._best_scale(
        functools.partial(make, base, models), model_state
      )
      found[arm], chosen[arm] = make(base, models, scale), scale
    if ADAMERGING in merged_of(self.suite):
      ada = merging.adamerging(
        base,
        models,
        functools.partial(self._entropy, model_state),
        self._inputs(seed),
        labels=self.problem.labels,
      )
      found[ADAMERGING] = ada.params
      chosen['coefficients'] = self._shared_mean(ada.coefficients)
      chosen['entropies'] = np.asarray(ada.losses)
    vectors = merging.task_vectors(base, models, labels=self.problem.labels)
    gramian = mtl.gramian(vectors, labels=self.problem.labels)
    chosen['cosines'] = np.asarray(mtl.cosines(gramian))
    return found, chosen

  @functools.cached_property
  def _arithmetic(self) -> Callable[..., Any]:
    return jax.jit(
      lambda base, models, scale: merging.task_arithmetic(
        base, models, scale=scale, labels=self.problem.labels
      )
    )

  @functools.cached_property
  def _ties(self) -> Callable[..., Any]:
    return jax.jit(
      lambda base, models, scale: merging.ties(
        base, models, density=DENSITY, scale=scale, labels=self.problem.labels
      )
    )

  def _best_scale(self, make: Callable[[float], Any], model_state: Any):
    """Of the scales, the best on validation; not one that is not finite."""

    def score(scale):
      metrics = self.evaluate(make(scale), model_state, 'validation')
      found = self.suite.score_of(metrics)
      return found if np.isfinite(found) else -np.inf

    return max(SCALES, key=score)

  def _entropy(self, model_state: Any, params: Any, batch: Any) -> jax.Array:
    """Summed over tasks; no label is read."""
    outputs = self.problem.model.apply(
      params, model_state, self.data.inputs(batch)
    )
    return sum(
      merging.entropy(task.class_logits(x))
      for task, x in zip(self.suite.tasks, outputs, strict=True)
    )

  def _inputs(self, seed: int):
    """Batches of the validation split, without its labels."""
    arrays = _without(self.data.splits['validation'], self.suite.task_names)
    size = min(self.batch_size, len(next(iter(arrays.values()))))
    batches = readers.make_train_iterator(arrays, batch_size=size, seed=seed)
    return (next(batches) for _ in range(self.num_steps))

  def _shared_mean(self, coefficients: Any) -> np.ndarray:
    """Over the shared leaves, ``(T,)``."""
    rows = [
      np.asarray(x)
      for label, x in zip(
        jax.tree.leaves(self.problem.labels),
        jax.tree.leaves(coefficients),
        strict=True,
      )
      if label == 'shared'
    ]
    return np.mean(rows, axis=0)


def _without(
  arrays: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, np.ndarray]:
  return {name: x for name, x in arrays.items() if name not in names}
