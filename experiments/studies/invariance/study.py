"""What a constant factor on a task's loss changes, setting by setting.

  python -m experiments.invariance

A network of two tasks is trained for 100 steps twice: with the losses as they
are, and with the factors 10 and 0.1 on them. How far the displacements of its
parameters are apart says whether optimizer and method are invariant to the
scale of the losses. To ``--out`` go ``config.json``, ``results.csv``,
``curves.json`` (what epsilon, coupled weight decay and clipping do, over the
factor), ``oracles.json`` (what is equal to the bit), ``summary.json`` and
``report.html`` with the verdicts on E5, E6 and E6'. It is done in one go, in
float64.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.console
import tyro

import mtljax as mtl
from experiments.lab import command, identity
from experiments.lab.options import RunOptions, free
from experiments.report import files, write_report
from experiments.report.console import print_end
from experiments.studies.invariance import oracles as oracles_
from mtljax import _validate

TASKS = ('first', 'second')
WIDTH = 20
TARGETS = (1.0, 3.0)  # each task is the input times this
FACTORS = (10.0, 0.1)
RATE = 1e-3
MOMENTUM = 0.9
SHORT = 10  # steps after which the heads are measured first


class Setting(NamedTuple):
  """A row of the table.

  Attributes:
    name: as shown.
    frozen: whether the trunk stays as it is.
    make: from labels to the chain of method and optimizer.
    factors: of the losses, in place of `FACTORS`.
    changing: whether the factors are drawn anew at every step.
  """

  name: str
  frozen: bool
  make: Callable[[Any], optax.GradientTransformation]
  factors: tuple[float, float] = FACTORS
  changing: bool = False


def _summed(*optimizer):
  """The optimizer on the gradient of the summed loss."""
  return lambda labels: optax.chain(
    mtl.sum_losses(len(TASKS), labels=labels), *optimizer
  )


def _uw_o(optimizer):
  return lambda labels: optax.chain(
    mtl.uw_o(len(TASKS), labels=labels), optimizer
  )


def _adatask(eps):
  return lambda labels: mtl.adatask(len(TASKS), RATE, eps=eps, labels=labels)


def _adam(eps=0.0, b1=0.9, b2=0.999):
  return optax.adam(RATE, b1=b1, b2=b2, eps=eps)


def _sgd():
  return optax.sgd(RATE, momentum=MOMENTUM)


def settings() -> list[Setting]:
  """The rows, in order."""
  memoryless = _adam(b1=0.0, b2=0.0)
  adamw = optax.adamw(RATE, eps=0.0, weight_decay=1e-2)
  clip = optax.clip_by_global_norm(1.0)
  decay = optax.add_decayed_weights(1e-5)
  return [
    Setting('frozen, SGD', True, _summed(_sgd())),
    Setting('frozen, Adam eps=0', True, _summed(_adam())),
    Setting('frozen, Adam eps=1e-12', True, _summed(_adam(1e-12))),
    Setting('frozen, Adam eps=1e-8', True, _summed(_adam(1e-8))),
    Setting('frozen, Adam eps=1e-4', True, _summed(_adam(1e-4))),
    Setting('frozen, Adam coupled decay', True, _summed(decay, _adam())),
    Setting('frozen, AdamW', True, _summed(adamw)),
    Setting('frozen, clipped Adam', True, _summed(clip, _adam())),
    Setting(
      'frozen, Adam, changing factors', True, _summed(_adam()), changing=True
    ),
    Setting(
      'frozen, Adam b1=b2=0, changing factors',
      True,
      _summed(memoryless),
      changing=True,
    ),
    Setting('free, Adam eps=0', False, _summed(_adam())),
    Setting('free, Adam b1=b2=0', False, _summed(memoryless)),
    Setting('free, Adam, one factor', False, _summed(_adam()), (10.0, 10.0)),
    Setting('free, AdaTask eps=1e-8', False, _adatask(1e-8)),
    Setting('free, AdaTask eps=0', False, _adatask(0.0)),
    Setting('free, UW-O, Adam', False, _uw_o(_adam())),
    Setting('free, UW-O, SGD', False, _uw_o(_sgd())),
  ]


#: What is varied over the factor: label, values, and the chain.
CURVES: dict[str, tuple[tuple[float, ...], Callable[[Any], Any]]] = {
  'epsilon': (
    (1e-12, 1e-8, 1e-6, 1e-4),
    lambda x: _summed(optax.adam(RATE, eps=x)),
  ),
  'coupled weight decay': (
    (1e-8, 1e-6, 1e-4, 1e-2),
    lambda x: _summed(optax.add_decayed_weights(x), _adam()),
  ),
  'clipping norm': (
    (0.01, 0.1, 1.0, 10.0),
    lambda x: _summed(optax.clip_by_global_norm(x), _adam()),
  ),
}
SWEPT = tuple(10.0**k for k in range(-4, 5))


@dataclasses.dataclass(frozen=True)
class InvarianceConfig(RunOptions):
  """What a constant factor on a task's loss changes, setting by setting."""

  out: pathlib.Path = free(pathlib.Path('results/invariance'))
  """Folder for everything this run writes."""
  steps: int = 100
  """Steps of training."""
  examples: int = 64
  """Examples, all in every step."""
  seed: int = 0
  """Of the network and the examples."""
  resume: bool = free(True)
  """Write over the same study in --out. --no-resume moves it aside."""


def check(config: InvarianceConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  _validate.in_range('--steps', config.steps, SHORT)
  _validate.in_range('--examples', config.examples, 2)
  _validate.in_range('--seed', config.seed, 0)


def _dense(key, inputs, outputs):
  kernel_key, bias_key = jax.random.split(key)
  bound = 1 / np.sqrt(inputs)

  def draw(key, shape):
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

  return {
    'kernel': draw(kernel_key, (inputs, outputs)),
    'bias': draw(bias_key, (outputs,)),
  }


def _apply(layers, x, last=False):
  for i, layer in enumerate(layers):
    x = x @ layer['kernel'] + layer['bias'][None]
    if not last or i + 1 < len(layers):
      x = jax.nn.leaky_relu(x)
  return x


def make_problem(config: InvarianceConfig):
  """The parameters at the start, and the losses of the tasks."""
  keys = jax.random.split(jax.random.key(config.seed), 7)
  params = {
    'trunk': [_dense(keys[0], 1, WIDTH), _dense(keys[1], WIDTH, WIDTH)],
    'heads': [
      [_dense(keys[2 + 2 * t], WIDTH, WIDTH), _dense(keys[3 + 2 * t], WIDTH, 1)]
      for t in range(len(TASKS))
    ],
  }
  x = jax.random.uniform(keys[6], (config.examples, 1), minval=-1.0)

  def losses(params):
    features = _apply(params['trunk'], x)
    return jnp.stack(
      [
        jnp.mean((_apply(head, features, last=True) - scale * x) ** 2)
        for head, scale in zip(params['heads'], TARGETS, strict=True)
      ]
    )

  return params, losses


def displacements(
  config: InvarianceConfig, setting: Setting, factors: Any
) -> dict[str, Any]:
  """How far the parameters are from the start, for each pair of factors.

  Args:
    config: the study.
    setting: what is trained. Its ``factors`` are not read.
    factors: of the losses, shape ``(N, 2)``.

  Returns:
    ``heads`` and, unless frozen, ``trunk``: leaves with axes for N and for
    the steps.
  """
  params, losses = make_problem(config)
  labels = {'heads': list(range(len(TASKS)))}
  if not setting.frozen:
    labels['trunk'] = 'shared'
  tx = setting.make(labels)
  start = {name: params[name] for name in labels}
  keys = jax.random.split(jax.random.key(config.seed + 1), config.steps)

  def train(factor):
    changes = jnp.any(factor != 1) & setting.changing

    def step(carry, key):
      trained, state = carry
      drawn = 10 ** jax.random.uniform(key, factor.shape, minval=-1.0)
      now = factor * jnp.where(changes, drawn, 1)
      found, grads = mtl.value_and_task_grads(
        lambda p: now * losses(params | p), labels=labels
      )(trained)
      updates, state = tx.update(grads, state, trained, losses=found)
      trained = optax.apply_updates(trained, updates)
      return (trained, state), jax.tree.map(jnp.subtract, trained, start)

    return jax.lax.scan(step, (start, tx.init(start)), keys)[1]

  # One after the other, so that what is equal is so to the bit.
  return jax.jit(lambda x: jax.lax.map(train, x))(jnp.asarray(factors, float))


def change(moved: Any, step: int) -> np.ndarray:
  """The relative change to the first run, after some steps, of the others."""
  first = [np.asarray(x)[:, step - 1] for x in jax.tree.leaves(moved)]
  size = np.sqrt(sum(np.sum(x[0] ** 2) for x in first))
  gap = [
    np.sum(np.square(x[1:] - x[:1]).reshape(len(x) - 1, -1), 1) for x in first
  ]
  return np.sqrt(sum(gap)) / size


def measure(config: InvarianceConfig, setting: Setting) -> dict[str, Any]:
  """A row of ``results.csv``."""
  moved = displacements(config, setting, [(1.0, 1.0), setting.factors])
  row: dict[str, Any] = {'setting': setting.name}
  for name, part, step in (
    ('heads_10', 'heads', SHORT),
    ('heads_100', 'heads', config.steps),
    ('trunk_100', 'trunk', config.steps),
  ):
    row[name] = float(change(moved[part], step)[0]) if part in moved else ''
  return row


def measure_curve(config: InvarianceConfig, name: str) -> dict[str, Any]:
  """The change of the heads under a frozen trunk, over the factor."""
  values, make = CURVES[name]
  factors = [(1.0, 1.0), *((x, x) for x in SWEPT)]

  def one(value):
    setting = Setting(name, True, make(value))
    return displacements(config, setting, factors)['heads']

  moved = jax.jit(lambda x: jax.lax.map(one, x))(jnp.asarray(values, float))
  return {
    'factors': list(SWEPT),
    'values': list(values),
    'heads': [
      change(jax.tree.map(lambda x, i=i: x[i], moved), config.steps).tolist()
      for i in range(len(values))
    ],
  }


def run(config: InvarianceConfig, console: rich.console.Console) -> None:
  """Runs the study."""
  start = time.perf_counter()
  values = dataclasses.asdict(config)
  values |= {'experiment': 'invariance', 'tasks': list(TASKS)}
  identity.open_study(config, values, starts_over=True)
  with jax.enable_x64(True):
    rows = [measure(config, setting) for setting in settings()]
    curves = {name: measure_curve(config, name) for name in CURVES}
    oracles = [oracles_.measure(oracle) for oracle in oracles_.oracles()]
  files.write_table(config.out / files.TABLE, rows)
  files.write_json(config.out / 'curves.json', curves)
  files.write_json(config.out / 'oracles.json', oracles)
  write_report(config.out, console)
  print_end(config.out, start, console)


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: tyro.cli(InvarianceConfig, prog='python -m experiments.invariance'),
    lambda config, _: check(config),
    lambda config, _, console: run(config, console),
  )


if __name__ == '__main__':
  main()
