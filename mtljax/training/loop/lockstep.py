"""Runs that ask for their steps, one of them or many in step with each other.

`mtljax.training.fit_steps` is a training run without its step. It yields what
to step on and is sent what came out, so that the same run can be one of its own
or a member of a sweep.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.training.loop._finite import NonFiniteLossError
from mtljax.training.step.state import TrainState
from mtljax.training.step.sweep import Sweep

GetState = Callable[[], TrainState]


class Asked(NamedTuple):
  """What a run wants: a step of the state on the batch."""

  get_state: GetState
  batch: Any


class Ended(NamedTuple):
  """What a run returned."""

  result: Any


Steps = Generator[Asked, tuple[GetState, Mapping[str, Any]], Any]


def ask(run: Steps, answer: Any = None) -> Asked | Ended:
  """The next step that a run asks for, told what came of the last one."""
  try:
    return run.send(answer)
  except StopIteration as end:
    return Ended(end.value)


def holding(state: TrainState) -> GetState:
  """``get_state`` of a state that is there."""
  return functools.partial(_same, state)


def _same(state: TrainState) -> TrainState:
  return state


def drive(
  step_fn: Callable[[TrainState, Any], tuple[TrainState, Mapping[str, Any]]],
  run: Steps,
) -> Any:
  """Takes the steps that a run asks for; returns what it returns."""
  asked = ask(run)
  state = None if isinstance(asked, Ended) else asked.get_state()
  while isinstance(asked, Asked):
    state, metrics = step_fn(state, asked.batch)  # pyrefly: ignore
    asked = ask(run, (holding(state), metrics))
    if isinstance(asked, Asked):
      state = asked.get_state()  # the run may have changed it
  return asked.result


def fit_sweep(sweep: Sweep, runs: Sequence[Steps]) -> list[Any]:
  """Trains the members of a sweep, each by a run of its own.

  Each run is a generator of `mtljax.training.fit_steps`, or one that delegates
  to it by ``yield from``, with its own data, evaluation, writer and
  checkpointer. What a member writes is what `mtljax.training.fit` writes for
  it. Runs that resume at different steps are trained after one another, those
  at the same step together.

  Args:
    sweep: from `mtljax.training.make_sweep`; its step gives every member a
      batch of its own.
    runs: one a member. The states that they start from are those of the
      members' `TrainStep`.

  Returns:
    What each run returned, `FitResult` from ``fit_steps``; for one that raised
    a `NonFiniteLossError`, that error. The others are trained to their end.

  Raises:
    ValueError: there are not as many runs as members.

  Examples:
    >>> import jax, jax.numpy as jnp, mtljax as mtl, optax
    >>> from mtljax.training import (
    ...   fit_steps, fit_sweep, make_sweep, make_train_step)
    >>> def task_losses(params, batch):
    ...   return jnp.stack([jnp.mean((params - batch) ** 2), params**2])
    >>> def build(hparams):
    ...   return make_train_step(
    ...     mtl.mean(2), optax.sgd(hparams['rate']), task_losses)
    >>> sweep = make_sweep(build, {'rate': [0.5, 0.1, 1e30]})
    >>> runs = [
    ...   fit_steps(
    ...     step.init(jnp.float32(2.0), key=jax.random.key(i)),
    ...     iter([jnp.ones(4)] * 3), num_steps=3,
    ...     task_names=['near one', 'near zero'], progress=False)
    ...   for i, step in enumerate(sweep.steps)]
    >>> found = fit_sweep(sweep, runs)
    >>> [type(result).__name__ for result in found]
    ['FitResult', 'FitResult', 'NonFiniteLossError']
    >>> print(found[0].state.params)
    0.5
  """
  if len(runs) != sweep.num_members:
    raise ValueError(
      f'runs: there are {len(runs)} for num_members={sweep.num_members}; pass '
      'one a member.'
    )
  results: list[Any] = [None] * len(runs)
  groups: dict[int, dict[int, Asked]] = {}
  try:
    for i, run in enumerate(runs):
      asked = _ask_or_fail(run)
      if isinstance(asked, Ended):
        results[i] = asked.result
      else:
        groups.setdefault(int(asked.get_state().step), {})[i] = asked
    for group in groups.values():
      whole = len(group) == sweep.num_members
      own = sweep if whole else sweep.subset(list(group))
      _train(own, {i: runs[i] for i in group}, list(group.values()), results)
  finally:
    for run in runs:
      run.close()
  return results


def _ask_or_fail(run: Steps, answer: Any = None) -> Asked | Ended:
  try:
    return ask(run, answer)
  except NonFiniteLossError as error:
    return Ended(error)


def _train(
  sweep: Sweep,
  runs: dict[int, Steps],
  asked: list[Asked],
  results: list[Any],
) -> None:
  """Trains runs that are at the same step, till all of them have ended."""
  state = sweep.stack([one.get_state() for one in asked])
  live = dict(enumerate(runs.items()))
  while live:
    state, metrics = sweep.step(
      state, _stacked([one.batch for one in asked]), shared_batch=False
    )
    own_metrics = _unstacked(metrics, sweep.num_members)
    stopped, changed = None, False
    for place, (i, run) in list(live.items()):
      get_state = functools.partial(sweep.member, state, place)
      try:
        answer = _ask_or_fail(run, (get_state, own_metrics[place]))
      except SystemExit as stop:
        # The others are told of this step before the program ends.
        stopped = stopped or stop
        continue
      if isinstance(answer, Asked):
        asked[place] = answer
        changed |= answer.get_state is not get_state
      else:
        # Its place goes on with its last batch, and nobody reads it.
        results[i] = answer.result
        del live[place]
    if stopped is not None:
      raise stopped
    if changed and live:
      state = sweep.stack(
        [
          one.get_state() if place in live else sweep.member(state, place)
          for place, one in enumerate(asked)
        ]
      )


def _stacked(batches: Sequence[Any]) -> Any:
  def stack(*leaves):
    on_host = all(isinstance(x, np.ndarray) for x in leaves)
    return np.stack(leaves) if on_host else jnp.stack(leaves)

  return jax.tree.map(stack, *batches)


@functools.partial(jax.jit, static_argnums=1)
def _unstacked(tree: Any, size: int) -> list[Any]:
  return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(size)]
