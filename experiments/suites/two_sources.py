"""Digits and flights together: tasks on different examples, by one network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.suites import (
  DataOptions,
  Measure,
  MixedData,
  Network,
  SourcePart,
  Suite,
  Task,
  digits,
  flights,
  mix,
  names,
)
from mtljax import models
from mtljax.models import Sharing

#: Which tasks are on which examples.
TASKS = {'digits': digits.TASKS, 'flights': flights.MINUTES}
#: A batch of flights has twice the rows, and is there at every other step.
SHARES = {'digits': 1.0, 'flights': 2.0}
RATES = {'digits': 1.0, 'flights': 0.5}


def load(options: DataOptions, tasks: tuple[str, ...], say) -> MixedData:
  """Both data sets, of each as many rows as the options say.

  Minutes have mean 0 and variance 1 over the rows trained on.
  """
  chosen = {
    source: tuple(task for task in found if task in tasks)
    for source, found in TASKS.items()
  }
  loaders = {'digits': digits.load, 'flights': flights.load}
  of_source = {'digits': '', 'flights': 'standardised'}
  found = {
    source: loaders[source](
      dataclasses.replace(options, source=of_source[source]),
      chosen[source] or TASKS[source],
      say,
    )
    for source in TASKS
  }
  keys = ('numeric', 'categorical')

  def inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    there = {}
    if 'image' in batch:
      there['digits'] = found['digits'].inputs(batch)
    if keys[0] in batch:
      there['flights'] = {key: batch[key] for key in keys}
    return there

  parts = {
    source: SourcePart(
      splits=found[source].splits,
      tasks=chosen[source],
      share=SHARES[source],
      rate=RATES[source],
    )
    for source in TASKS
  }
  return mix(parts, inputs)


class Trunk(nn.Module):
  """An encoder a source, then dense layers that all sources pass through.

  Args:
    encoders: by source, from its inputs to features ``(B, D)``.
    joint: the layers of all, from ``(B, joint.hidden_sizes[0])``.
    width: units that each source enters them by.
  """

  encoders: Mapping[str, nn.Module]
  joint: nn.Module
  width: int

  @nn.compact
  def __call__(
    self, x: Mapping[str, Any], *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Maps the inputs of each source to features ``(B, D)`` of it."""
    found = {}
    for source, encoder in self.encoders.items():
      z = encoder(x[source], train=train)
      z = nn.relu(nn.Dense(self.width, name=f'enter_{source}')(z))
      found[source] = self.joint(z, train=train)
    return found


class Head(nn.Module):
  """Dense layers on the features of one source."""

  source: str
  layers: nn.Module

  @nn.compact
  def __call__(self, x: Mapping[str, jax.Array], *, train: bool = False):
    """Maps the features of all sources to outputs (B, K)."""
    return self.layers(x[self.source], train=train)


def joint(tasks, widths) -> models.MultiTaskModel:
  """MultiLeNet's trunk and embedded columns, each a trunk of its source."""
  source_of = {task: x for x, found in TASKS.items() for task in found}
  first, *rest = widths.hidden_sizes
  trunks = {
    'digits': lambda: models.MultiLeNetTrunk(name='digits'),
    'flights': lambda: models.MLPTrunk(
      (first,),
      encoder=models.EmbedColumns(flights.SIZES, flights.UNITS),
      name='flights',
    ),
  }
  used = dict.fromkeys(source_of[task.name] for task in tasks)
  trunk = Trunk(
    {source: trunks[source]() for source in TASKS if source in used},
    models.MLPTrunk(tuple(rest) or (first,), name='joint'),
    first,
  )
  return models.MultiTaskModel(
    trunk,
    [
      Head(
        source_of[task.name],
        models.MLPHead(task.num_outputs, widths.head_sizes),
      )
      for task in tasks
    ],
    names(tasks),
    conventions={
      'trunk': Sharing('all that is no head, each source its own part too'),
      'joint': Sharing(
        'the same, with Gramians over the layers of all sources alone',
        gramian=('trunk/joint/.*',),
      ),
    },
  )


def is_known(labels: jax.Array) -> jax.Array:
  """Which digits there are."""
  return labels >= 0


def cross_entropies(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Of each row, ``(B,)``; 0 where there is no digit."""
  losses = optax.losses.softmax_cross_entropy_with_integer_labels(
    logits, jnp.maximum(labels, 0)
  )
  return jnp.where(is_known(labels), losses, 0)


def in_deviations(task: Task) -> Task:
  """A task of minutes without its unit."""
  mae, *others = task.measures
  return dataclasses.replace(
    task,
    measures=(
      Measure(name=mae.name, higher_is_better=False, unit='sd'),
      *others,
    ),
  )


_LONG = {
  'epochs': 4,
  'learning_rate': 2e-3,
  'hidden_sizes': (64, 64),
  'data.num_train': 20_000,
  'data.num_validation': 2_000,
  'data.num_test': 4_000,
}

SUITE = Suite(
  name='two_sources',
  title='two overlapping digits, and flights from New York, together',
  tasks=(
    *(
      dataclasses.replace(
        task, example_losses=cross_entropies, present=is_known
      )
      for task in digits.SUITE.tasks
    ),
    *(
      in_deviations(task)
      for task in flights.SUITE.tasks
      if task.name in TASKS['flights']
    ),
  ),
  load=load,
  networks={'joint': Network(make=joint)},
  presets={
    'quick': _LONG
    | {
      'methods': ('sum_losses', 'uncertainty', 'pcgrad', 'cagrad', 'nash_mtl'),
      'data.num_train': 10_000,
      'data.num_validation': 1_000,
      'data.num_test': 2_000,
    },
    'long': _LONG,
  },
)
