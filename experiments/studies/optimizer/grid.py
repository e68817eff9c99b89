"""The grid of the optimizer study: groups of runs, each one program."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax as mtl
from experiments.lab import methods
from experiments.lab.optimizers import (
  ADAM,
  HEAVY_BALL,
  SIGN_HEAVY_BALL,
  Make,
)
from experiments.lab.problem import (
  SINGLE,
  Problem,
  make_problem,
  over_batches,
)
from experiments.lab.suite import Data, Suite, Widths
from experiments.report import files
from mtljax.training import make_sweep, make_train_step
from mtljax.training.step.train_step import TrainStep

#: Optimizers that follow a method, from a learning rate or schedule.
OPTIMIZERS: dict[str, Make] = {
  'adam': ADAM,
  'signsgd': SIGN_HEAVY_BALL,
  'momentum': HEAVY_BALL,
}
#: Optimizers that read the gradient of each task, by the name of the method.
PER_TASK = {'adatask': 'adatask', 'mtl_io': 'per_task_optimizer'}
#: Those whose steps have the length of the gradient.
LINEAR = ('momentum', 'mtl_io')
#: The network of the suites that have it.
NETWORK = 'multi_mlp'
#: How the members of a sweep run.
MODES = ('vmap', 'map', 'loop')
SPLITS = ('validation', 'test')


class Group(NamedTuple):
  """An optimizer and a method; '' for the optimizers that take none.

  Baselines are the optimizer ``'adam'`` and the method ``'single_<task>'``.
  """

  optimizer: str
  method: str

  @property
  def name(self) -> str:
    """As its folder is called."""
    return '.'.join(filter(None, self))

  @property
  def is_baseline(self) -> bool:
    """Whether one task is trained alone."""
    return self.method.startswith(SINGLE)


class Part(NamedTuple):
  """A file of a group: its runs with a ratio and a seed, at all rates."""

  group: Group
  ratio: float
  seed: int

  def path(self, out: pathlib.Path) -> pathlib.Path:
    """Where it is kept."""
    name = f'ratio_{self.ratio:g}.seed_{self.seed}.npz'
    return out / 'runs' / self.group.name / name

  def read(self, out: pathlib.Path) -> dict[str, np.ndarray] | None:
    """What it holds, or None where it is missing or damaged."""
    path = self.path(out)
    try:
      return files.read_arrays(path, name=path.relative_to(out).as_posix())
    except (OSError, ValueError):
      return None


@dataclasses.dataclass(frozen=True)
class Training:
  """What all groups have in common.

  Attributes:
    suite: the tasks.
    data: of `with_inputs`.
    hidden_sizes: layers of the trunk.
    head_sizes: hidden layers of each head.
    epochs: passes over the data.
    batch_size: examples a step.
    mode: how the members run, see `mtljax.training.make_sweep`.
    network: its name in the suite.
  """

  suite: Suite
  data: Data
  hidden_sizes: tuple[int, ...]
  head_sizes: tuple[int, ...]
  epochs: int
  batch_size: int
  mode: str
  network: str = NETWORK

  @property
  def num_steps(self) -> int:
    """Steps of every run."""
    return self.epochs * self.data.steps_per_epoch(self.batch_size)

  def make_problem(self, tasks: Sequence[str]) -> Problem:
    """The network on some of the tasks."""
    widths = Widths(hidden_sizes=self.hidden_sizes, head_sizes=self.head_sizes)
    network = self.suite.network(self.network)
    return make_problem(self.suite, self.data, network, widths, tasks=tasks)


def measures_of(suite: Suite, tasks: Sequence[str]) -> tuple[str, ...]:
  """What delta-m of some tasks is taken over: names ``<metric>/<task>``."""
  return tuple(
    f'{measure.name}/{task.name}'
    for task in suite.tasks_of(tasks)
    for measure in task.measures
    if measure.in_delta_m
  )


def with_inputs(suite: Suite, data: Data, network: str = NETWORK) -> Data:
  """The data with inputs that are made once, not at every step, and flat.

  So for dense layers that read one array; for others the data as they are.
  """
  one = {name: x[:1] for name, x in data.splits['train'].items()}
  whole = isinstance(jax.eval_shape(data.inputs, one), jax.ShapeDtypeStruct)
  if network != NETWORK or not whole:
    return data
  make = jax.jit(data.inputs)
  splits = {}
  for name, arrays in data.splits.items():
    inputs = np.asarray(make(dict(arrays)))
    labels = {task: arrays[task] for task in suite.task_names}
    splits[name] = {'inputs': inputs.reshape(len(inputs), -1), **labels}
  return Data(splits, lambda batch: batch['inputs'])


def scale_last(loss: mtl.Staged, ratio: Any) -> mtl.Staged:
  """The loss with its last task's multiplied by a ratio."""
  *others, last = loss.heads

  def scaled(*args):
    value, aux = last(*args)
    return ratio * value, aux

  return mtl.Staged(loss.trunk, [*others, scaled])


def build_step(
  group: Group,
  problem: Problem,
  num_steps: int,
  hparams: Mapping[str, Any],
) -> TrainStep:
  """The step of a run: ``learning_rate`` and ``ratio`` may be traced.

  The learning rate is halved after each third of the steps, as in the paper.
  """
  rate = optax.piecewise_constant_schedule(
    hparams['learning_rate'],
    {max(1, num_steps * i // 3): 0.5 for i in (1, 2)},
  )
  name = PER_TASK.get(group.optimizer, group.method)
  method = methods.make_method(
    'sum_losses' if group.is_baseline else name,
    len(problem.tasks),
    problem.labels,
    rho=0.05,
    gramian_labels=problem.sharings.gramian_labels,
    optimizer=OPTIMIZERS['momentum'],
    learning_rate=rate,
  )
  alone = method.info.is_optimizer
  return make_train_step(
    method,
    optax.identity() if alone else OPTIMIZERS[group.optimizer](rate),
    scale_last(problem.loss, hparams['ratio']),
    has_state=True,
  )


def make_evaluate(
  problem: Problem, training: Training
) -> Callable[[Any], dict[str, np.ndarray]]:
  """``evaluate(state) -> arrays``: scores and losses of all members.

  ``<split>/score``, of the shape ``(M, N)``, has a column for each of
  `measures_of` the tasks, and ``<split>/loss``, ``(M, T)``, one a task;
  ``finite`` is of shape ``(M,)``.
  """
  measures = measures_of(training.suite, problem.tasks)
  losses = [f'loss/{task}' for task in problem.tasks]

  def table(found, params):
    """The arrays of a member, from its metrics by split."""
    arrays = {
      f'{name}/{column}': jnp.stack([metrics[x] for x in columns])
      for name, metrics in found.items()
      for column, columns in (('score', measures), ('loss', losses))
    }
    leaves = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(params)]
    leaves.append(jnp.all(jnp.isfinite(arrays['validation/loss'])))
    return arrays | {'finite': jnp.all(jnp.stack(leaves))}

  if training.mode == 'loop':
    tabled = jax.jit(table)
    # A smaller split is filled up to the size.
    size = min(
      training.data.eval_batch, max(map(training.data.num_examples, SPLITS))
    )

    def one_by_one(states):
      rows = []
      for state in states:
        on_batch = functools.partial(
          problem.measure, state.params, state.model_state
        )
        found = {
          name: over_batches(on_batch, training.data.splits[name], size)
          for name in SPLITS
        }
        rows.append(jax.device_get(tabled(found, state.params)))
      return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    return one_by_one

  splits = {
    name: {
      **training.data.splits[name],
      'mask': np.ones(training.data.num_examples(name), bool),
    }
    for name in SPLITS
  }

  def one(splits, params, model_state):
    found = {}
    for name, batch in splits.items():
      metrics = problem.measure(params, model_state, batch)
      found[name] = {x: metrics[x].compute() for x in (*measures, *losses)}
    return table(found, params)

  @jax.jit
  def every(splits, params, model_state):
    return jax.lax.map(lambda args: one(splits, *args), (params, model_state))

  return lambda state: jax.device_get(
    every(splits, state.params, state.model_state)
  )


def train(
  training: Training,
  parts: Sequence[Part],
  rates: Sequence[float],
  callback: Callable[[int], None] = lambda _: None,
) -> list[dict[str, np.ndarray]]:
  """Trains parts of one group at all learning rates as one sweep.

  Runs of the same seed begin with the same parameters and see the same batches.
  One that is no longer finite does not touch the others.

  Args:
    training: what the groups have in common.
    parts: of one group.
    rates: learning rates, R.
    callback: called with each step.

  Returns:
    For every part ``<split>/score`` and ``<split>/loss`` after each of E
    epochs, shapes ``(R, E, N)`` and ``(R, E, T)``, ``finite``, shape
    ``(R, E)``, and ``start/loss``, shape ``(R, T)``: on validation data,
    before the first step.
  """
  group = parts[0].group
  tasks = training.suite.task_names
  if group.is_baseline:
    tasks = (group.method.removeprefix(SINGLE),)
  problem = training.make_problem(tasks)
  members = [(part, rate) for part in parts for rate in rates]
  sweep = make_sweep(
    functools.partial(build_step, group, problem, training.num_steps),
    {
      'learning_rate': [rate for _, rate in members],
      'ratio': [part.ratio for part, _ in members],
    },
    mode=training.mode,  # pyrefly: ignore[bad-argument-type]
  )
  seeds = list(dict.fromkeys(part.seed for part in parts))
  place = np.array([seeds.index(part.seed) for part, _ in members])

  init = jax.jit(functools.partial(problem.start, sweep.steps[0]))
  states = [init(jax.random.key(seed)) for seed in seeds]
  state = sweep.stack([states[i] for i in place])
  batches = [training.data.batches(training.batch_size, s) for s in seeds]
  evaluate = make_evaluate(problem, training)
  per_epoch = training.data.steps_per_epoch(training.batch_size)
  start = evaluate(state)['validation/loss']
  epochs = []
  for step in range(1, training.num_steps + 1):
    found = [next(iterator) for iterator in batches]
    batch = {
      name: np.stack([one[name] for one in found])[place] for name in found[0]
    }
    state, _ = sweep.step(state, batch, shared_batch=False)
    callback(step)
    if step % per_epoch == 0:
      epochs.append(evaluate(state))
  return [
    {
      name: np.stack(
        [
          epoch[name][i * len(rates) : (i + 1) * len(rates)] for epoch in epochs
        ],
        axis=1,
      )
      for name in epochs[0]
    }
    | {'start/loss': start[i * len(rates) : (i + 1) * len(rates)]}
    for i in range(len(parts))
  ]


def run_group(
  out: pathlib.Path,
  training: Training,
  parts: Sequence[Part],
  rates: Sequence[float],
  callback: Callable[[int], None],
) -> None:
  """Trains parts of one group and writes a file for each."""
  start = time.perf_counter()
  found = train(training, parts, rates, callback)
  seconds = (time.perf_counter() - start) / len(parts)
  for part, arrays in zip(parts, found, strict=True):
    path = part.path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_arrays(
      path,
      {'rates': rates, 'seconds': seconds, **arrays},
      name=path.relative_to(out).as_posix(),
      compressed=True,
    )
