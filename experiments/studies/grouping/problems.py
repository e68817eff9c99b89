"""Tasks whose likeness is planted, and attributes of overlapping digits."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import optax

from experiments import suites
from experiments.suites import (
  SPLITS,
  Data,
  DataOptions,
  Measure,
  Suite,
  Task,
  mlp,
)
from mtljax import _validate
from mtljax.metrics import Accuracy, Mean

NUM_INPUTS, NUM_FEATURES, NUM_OUTPUTS = 20, 4, 3
#: Tasks of a planted group, and groups.
GROUP, NUM_GROUPS = 3, 2
#: Standard deviation of the noise on labels to train on.
NOISE = 0.5
SIZES = {'train': 500, 'validation': 500, 'test': 2000}
#: Between a suite and which of its sources.
SOURCE = '@'
FEWEST, MOST = 3, 8
#: Digits are averaged over squares of so many pixels.
POOL = 4


def _squared(outputs, labels):
  return jnp.mean((outputs - labels) ** 2, axis=1)


def _planted_metrics(outputs, labels, mask):
  return {'mse': Mean.from_values(_squared(outputs, labels), mask=mask)}


def _load_planted(options: DataOptions, tasks, say) -> Data:
  """Tasks of a group are other maps of the same hidden features."""
  del say
  rng = np.random.default_rng([options.seed, 3])
  hidden = rng.normal(size=(NUM_GROUPS, NUM_INPUTS, NUM_FEATURES))
  maps = rng.normal(size=(len(tasks), NUM_FEATURES, NUM_OUTPUTS))
  splits = {}
  for split in SPLITS:
    size = getattr(options, f'num_{split}') or SIZES[split]
    x = rng.normal(size=(size, NUM_INPUTS))
    splits[split] = {'x': x.astype(np.float32)}
    for t, name in enumerate(tasks):
      features = np.tanh(1.5 * x @ hidden[t // GROUP] / np.sqrt(NUM_INPUTS))
      y = features @ maps[t]
      if split != 'test':
        y = y + NOISE * rng.normal(size=y.shape)
      splits[split][name] = y.astype(np.float32)
  return Data(splits, lambda batch: batch['x'])


def planted() -> Suite:
  """Six regressions: three on the features of one group, three of another."""
  return Suite(
    name='planted',
    title='drawn regressions in two groups',
    tasks=tuple(
      Task(
        name=f'{"ab"[t // GROUP]}{t % GROUP}',
        num_outputs=NUM_OUTPUTS,
        example_losses=_squared,
        metrics=_planted_metrics,
        measures=(Measure(name='mse', higher_is_better=False),),
      )
      for t in range(GROUP * NUM_GROUPS)
    ),
    load=_load_planted,
    networks={'multi_mlp': mlp()},
  )


#: Of a digit: which, whether it is odd, whether it is five or more.
ATTRIBUTES: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
  '': (10, lambda digit: digit),
  '_odd': (2, lambda digit: digit % 2),
  '_large': (2, lambda digit: digit // 5),
}


def _accuracy(outputs, labels, mask):
  return {'accuracy': Accuracy.from_logits(outputs, labels, mask=mask)}


def _load_attributes(options: DataOptions, tasks, say) -> Data:
  options = dataclasses.replace(options, pool=POOL)
  digits = suites.find('digits')
  found = digits.load(options, digits.task_names, say)

  def label(arrays, name):
    side, _, rest = name.partition('_')
    of = ATTRIBUTES[f'_{rest}' if rest else ''][1]
    return of(arrays[side]).astype(np.int32)

  splits = {
    split: dict(arrays) | {name: label(arrays, name) for name in tasks}
    for split, arrays in found.splits.items()
  }
  return dataclasses.replace(found, splits=splits)


def digit_attributes() -> Suite:
  """Of both of two overlapping digits which it is, if odd, and if large."""
  return Suite(
    name='digit_attributes',
    title='attributes of two overlapping digits',
    tasks=tuple(
      Task(
        name=f'{side}{name}',
        num_outputs=classes,
        num_classes=classes,
        example_losses=(optax.losses.softmax_cross_entropy_with_integer_labels),
        metrics=_accuracy,
        measures=(Measure(name='accuracy', unit='%'),),
      )
      for side in ('left', 'right')
      for name, (classes, _) in ATTRIBUTES.items()
    ),
    load=_load_attributes,
    networks={'multi_mlp': mlp()},
  )


OWN: dict[str, Callable[[], Suite]] = {
  'planted': planted,
  'digit_attributes': digit_attributes,
}
NETWORK = 'multi_mlp'


@functools.cache
def find(problem: str) -> tuple[Suite, str]:
  """The suite of a problem with all its tasks, and which of its sources.

  Raises:
    ValueError: there is none of the name, or this study cannot take it.
  """
  name, _, source = problem.partition(SOURCE)
  if name in OWN:
    suite = OWN[name]()
  else:
    if '.' not in name:
      _validate.one_of('--problems', name, (*OWN, *suites.available()))
    suite = suites.find(name, '--problems')
  suite.network(NETWORK, f'the network that --problems {name} lacks')
  suite.check_data(DataOptions(source=source))
  if not FEWEST <= len(suite.tasks) <= MOST:
    raise ValueError(
      f'--problems={problem!r} has {len(suite.tasks)} tasks: all groups of '
      f'{FEWEST} to {MOST} are trained.'
    )
  return suite, source
