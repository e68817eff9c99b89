"""Members of a sweep, each trained by a run like one of its own."""

import contextlib
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from noise import Batches

import mtljax as mtl
from mtljax.training import (
  TIMING,
  Checkpointer,
  JsonlWriter,
  NonFiniteLossError,
  fit,
  fit_steps,
  fit_sweep,
  make_sweep,
  make_train_step,
)

RATES = [0.05, 0.01, 0.2]


def task_losses(params, x):
  return jnp.stack(
    [jnp.mean((x @ params) ** 2), jnp.mean((x @ params - 1) ** 2)]
  )


def build(hparams):
  return make_train_step(
    mtl.weightings.dwa(window=2),
    optax.adam(hparams['rate']),
    task_losses,
    num_tasks=2,
  )


def init(sweep, i):
  return sweep.steps[i].init(jnp.ones(3), key=jax.random.key(i))


@contextlib.contextmanager
def options(out, num_steps, **kwargs):
  """Arguments of a run, with a writer and a checkpointer of its own."""
  out.mkdir(parents=True, exist_ok=True)
  with (
    contextlib.closing(JsonlWriter(out / 'metrics.jsonl')) as writer,
    Checkpointer(out / 'checkpoints') as checkpointer,
  ):
    yield {
      'num_steps': num_steps,
      'task_names': ('a', 'b'),
      'log_every': 2,
      'eval_every': 3,
      'eval_fn': lambda state: {'norm': jnp.linalg.norm(state.params)},
      'select': lambda metrics: metrics['norm'],
      'writer': writer,
      'checkpointer': checkpointer,
      'progress': False,
      **kwargs,
    }


def lines(out):
  """The numbers of every line."""
  found = []
  for text in (out / 'metrics.jsonl').read_text().splitlines():
    line = json.loads(text)
    found.append({k: v for k, v in line.items() if k not in TIMING})
  return found


def assert_same_lines(a, b):
  assert [list(line) for line in a] == [list(line) for line in b]
  for x, y in zip(a, b, strict=True):
    for name, value in x.items():
      if isinstance(value, str):
        assert y[name] == value
      else:
        assert y[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def train(sweep, out, steps_of=lambda i: 6):
  with contextlib.ExitStack() as stack:
    runs = [
      fit_steps(
        init(sweep, i),
        Batches(i),
        **stack.enter_context(options(out / str(i), steps_of(i))),
      )
      for i in range(sweep.num_members)
    ]
    return fit_sweep(sweep, runs)


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """Every run by itself: the folder and the results."""
  out = tmp_path_factory.mktemp('alone')
  sweep = make_sweep(build, {'rate': RATES}, mode='loop')
  results = []
  for i in range(len(RATES)):
    with options(out / str(i), 6) as own:
      results.append(
        fit(sweep.steps[i].step, init(sweep, i), Batches(i), **own)
      )
  return out, results


@pytest.mark.parametrize('mode', ['vmap', 'loop'])
def test_a_member_writes_and_ends_as_alone(mode, alone, tmp_path):
  sweep = make_sweep(build, {'rate': RATES}, mode=mode)
  found = train(sweep, tmp_path)
  for i, expected in enumerate(alone[1]):
    np.testing.assert_allclose(
      found[i].state.params, expected.state.params, rtol=1e-4
    )
    assert found[i].best_step == expected.best_step
    assert found[i].best_score == pytest.approx(expected.best_score, rel=1e-4)
    assert_same_lines(lines(tmp_path / str(i)), lines(alone[0] / str(i)))
    kept = [
      sorted(p.name for p in (out / str(i)).glob('checkpoints/*'))
      for out in (tmp_path, alone[0])
    ]
    assert kept[0] == kept[1]


def test_resume_with_members_at_different_steps(alone, tmp_path):
  sweep = make_sweep(build, {'rate': RATES}, mode='vmap')
  # One has ended, one was stopped half way, one has not begun.
  for i, steps in [(0, 6), (1, 3)]:
    with options(tmp_path / str(i), steps) as own:
      fit(sweep.steps[i].step, init(sweep, i), Batches(i), **own)
  found = train(sweep, tmp_path)
  assert [result.resumed_from for result in found] == [6, 3, None]
  for i, expected in enumerate(alone[1]):
    assert int(found[i].state.step) == 6
    np.testing.assert_allclose(
      found[i].state.params, expected.state.params, rtol=1e-4
    )
    assert_same_lines(lines(tmp_path / str(i)), lines(alone[0] / str(i)))


def test_one_that_diverges_does_not_stop_the_others(alone, tmp_path):
  sweep = make_sweep(build, {'rate': [*RATES[:2], np.inf]}, mode='vmap')
  found = train(sweep, tmp_path)
  assert isinstance(found[2], NonFiniteLossError)
  assert "task 'a' is nan" in str(found[2])
  for i in range(2):
    np.testing.assert_allclose(
      found[i].state.params, alone[1][i].state.params, rtol=1e-4
    )


def test_one_may_end_before_the_others(alone, tmp_path):
  sweep = make_sweep(build, {'rate': RATES}, mode='vmap')
  found = train(sweep, tmp_path, steps_of=lambda i: 3 if i == 0 else 6)
  assert [int(result.state.step) for result in found] == [3, 6, 6]
  np.testing.assert_allclose(
    found[1].state.params, alone[1][1].state.params, rtol=1e-4
  )


def test_all_are_told_of_a_step_before_the_program_ends():
  sweep = make_sweep(build, {'rate': RATES[:2]}, mode='loop')
  told, closed = [], []

  def run(i):
    try:
      return (
        yield from fit_steps(
          init(sweep, i),
          Batches(i),
          num_steps=5,
          task_names=('a', 'b'),
          progress=False,
          callback=lambda step, *_: stop(i, step),
        )
      )
    finally:
      closed.append(i)

  def stop(i, step):
    told.append((i, step))
    if step == 2:
      raise SystemExit(143)

  with pytest.raises(SystemExit):
    fit_sweep(sweep, [run(0), run(1)])
  assert told == [(0, 1), (1, 1), (0, 2), (1, 2)]
  assert closed == [0, 1]


def test_a_member_is_adapted_as_alone(tmp_path):
  """By a factor of its own after every third step, not by the others'."""

  def adapt(state, found):
    params = state.params / (1 + found['norm'])
    return dataclasses.replace(state, params=params)

  sweep = make_sweep(build, {'rate': RATES[:2]}, mode='vmap')
  with contextlib.ExitStack() as stack:
    found = fit_sweep(
      sweep,
      [
        fit_steps(
          init(sweep, i),
          Batches(i),
          **stack.enter_context(options(tmp_path / str(i), 7, adapt_fn=adapt)),
        )
        for i in range(2)
      ],
    )
  for i in range(2):
    out = tmp_path / f'alone_{i}'
    step = sweep.steps[i].step
    with options(out, 7, adapt_fn=adapt) as own:
      expected = fit(step, init(sweep, i), Batches(i), **own)
    np.testing.assert_allclose(
      found[i].state.params, expected.state.params, rtol=1e-4
    )
    assert_same_lines(lines(tmp_path / str(i)), lines(out))
    first, second, _ = (x['norm'] for x in lines(out) if 'norm' in x)
    # The step in between begins at what the evaluation made of the state.
    assert second < 0.9 * first


def test_as_many_runs_as_members():
  sweep = make_sweep(build, {'rate': RATES}, mode='loop')
  with pytest.raises(ValueError, match='there are 1 for num_members=3'):
    fit_sweep(sweep, [iter(())])


def stopping(sweep, i, error, closed):
  """A run that raises an error, if any, after its second step."""

  def callback(step, *_):
    if step == 2 and error is not None:
      raise error

  try:
    return (
      yield from fit_steps(
        init(sweep, i),
        Batches(i),
        num_steps=3,
        task_names=('a', 'b'),
        progress=False,
        callback=callback,
      )
    )
  finally:
    closed.append(i)


def test_the_program_ends_as_the_first_run_asks():
  sweep = make_sweep(build, {'rate': RATES[:2]}, mode='loop')
  runs = [
    stopping(sweep, i, SystemExit(code), [])
    for i, code in enumerate([143, 130])
  ]
  with pytest.raises(SystemExit) as ended:
    fit_sweep(sweep, runs)
  assert ended.value.code == 143


def test_a_fault_in_one_closes_the_others():
  sweep = make_sweep(build, {'rate': RATES[:2]}, mode='loop')
  closed = []
  runs = [
    stopping(sweep, 0, KeyError(), closed),
    stopping(sweep, 1, None, closed),
  ]
  with pytest.raises(KeyError):
    fit_sweep(sweep, runs)
  assert closed == [0, 1]
