"""Where a run is resumed, every writer is cut at the step that was saved."""

import contextlib
import dataclasses
import json
import signal
import time

import jax
import jax.numpy as jnp
import optax
import pytest
from noise import Batches

import mtljax as mtl
from mtljax.training import (
  Checkpointer,
  DamagedFileError,
  JsonlWriter,
  MultiWriter,
  Preempted,
  Probe,
  fit,
  make_train_step,
)
from mtljax.training.disk import _seal


class Plain:
  """A writer without marks: the step alone says where to cut."""

  def __init__(self):
    self.steps = []

  def write(self, step, scalars, **tags):
    del scalars, tags
    self.steps.append(step)

  def truncate_after(self, step):
    self.steps = [n for n in self.steps if n <= step]

  def flush(self):
    pass

  def close(self):
    pass


def task_losses(params, x):
  return jnp.stack([jnp.mean((x @ params) ** 2), jnp.mean(x @ params - 1)])


TRAIN = make_train_step(mtl.mean(2), optax.sgd(0.01), task_losses)


class Stop(Exception):
  pass


def run(out, writer, probe_writer, num_steps, stop_at=None, **options):
  def stop(step, *_):
    if step == stop_at:
      raise Stop

  stopped = contextlib.nullcontext() if stop_at is None else pytest.raises(Stop)
  with Checkpointer(out / 'checkpoints') as checkpointer, stopped:
    return fit(
      TRAIN.step,
      TRAIN.init(jnp.ones(3), key=jax.random.key(0)),
      Batches(0),
      num_steps=num_steps,
      task_names=('a', 'b'),
      eval_every=5,
      writer=writer,
      checkpointer=checkpointer,
      progress=False,
      probe=Probe(
        fn=lambda state, batch: {'mean': jnp.mean(batch)},
        every=5,
        writer=probe_writer,
      ),
      **{'callback': stop, 'log_every': 1} | options,
    )


def test_a_step_measured_just_after_the_checkpoint_is_measured_once(tmp_path):
  """Steps 1, 6 and 11 are measured; 6 follows the checkpoint of step 5."""
  writer, probe = Plain(), Plain()
  run(tmp_path, writer, probe, 12, stop_at=8)
  assert (writer.steps, probe.steps) == ([1, 2, 3, 4, 5, 6, 7], [1, 6])
  result = run(tmp_path, writer, probe, 12)
  assert result.resumed_from == 5
  assert writer.steps == [*range(1, 13)]
  assert probe.steps == [1, 6, 11]


def adapting(factor):
  """Options that evaluate, and shrink the parameters by what is found."""

  def adapt(state, found):
    params = state.params * (factor + 0 * found['norm'])
    return dataclasses.replace(state, params=params)

  return {
    'eval_fn': lambda state: {'norm': jnp.linalg.norm(state.params)},
    'adapt_fn': adapt,
  }


def test_a_state_that_was_adapted_is_what_is_saved_and_gone_on_with(tmp_path):
  out = {name: tmp_path / name for name in ('whole', 'cut', 'plain')}
  ended = {
    name: run(out[name], Plain(), Plain(), 12, **adapting(x)).state.params
    for name, x in {'whole': 0.5, 'plain': 1.0}.items()
  }
  assert not jnp.allclose(ended['whole'], ended['plain'])
  run(out['cut'], Plain(), Plain(), 12, stop_at=8, **adapting(0.5))
  found = run(out['cut'], Plain(), Plain(), 12, **adapting(0.5))
  assert found.resumed_from == 5
  assert jnp.array_equal(found.state.params, ended['whole'])
  with pytest.raises(ValueError, match='adapt_fn returned a state of another'):
    run(
      tmp_path / 'other',
      Plain(),
      Plain(),
      5,
      **adapting(1)
      | {'adapt_fn': lambda state, _: dataclasses.replace(state, params=())},
    )


@pytest.fixture(params=[False, True], ids=['alone', 'among several'])
def opened(request, tmp_path):
  """The two files opened as writers, till the end of a ``with`` block."""

  @contextlib.contextmanager
  def both():
    with contextlib.ExitStack() as stack:
      files = [
        stack.enter_context(contextlib.closing(JsonlWriter(tmp_path / name)))
        for name in ('metrics.jsonl', 'probe.jsonl')
      ]
      yield [
        MultiWriter([file, Plain()]) if request.param else file
        for file in files
      ]

  return both


def test_a_run_that_is_resumed_twice_finds_its_files_as_marked(
  tmp_path, opened
):
  def steps(name):
    lines = (tmp_path / name).read_text().splitlines()
    return [json.loads(line)['step'] for line in lines]

  for stop_at in (8, 13, None):
    with opened() as writers:
      run(tmp_path, *writers, 17, stop_at)
  assert steps('metrics.jsonl') == [*range(1, 18)]
  assert steps('probe.jsonl') == [1, 6, 11, 16]


@pytest.mark.parametrize('name', ['metrics.jsonl', 'probe.jsonl'])
def test_a_file_that_was_changed_is_not_gone_on_with(tmp_path, opened, name):
  with opened() as writers:
    run(tmp_path, *writers, 7)
  path = tmp_path / name
  changed = path.read_text().replace('"step": 1,', '"step": 2,', 1)
  path.write_text(changed)
  with opened() as writers, pytest.raises(DamagedFileError, match=name):
    run(tmp_path, *writers, 12)
  assert path.read_text() == changed


def test_what_was_measured_before_a_signal_is_written(tmp_path):
  """The lines of metrics under way come later; the probe's are lost if not."""

  def callback(step, *_):
    if step == 8:
      signal.raise_signal(signal.SIGTERM)

  writer, probe = Plain(), Plain()
  with pytest.raises(Preempted) as stopped:
    run(tmp_path, writer, probe, 12, callback=callback, log_every=100)
  assert stopped.value.step == 8
  assert (writer.steps, probe.steps) == ([5], [1, 6])
  result = run(tmp_path, writer, probe, 12, log_every=100)
  assert result.resumed_from == 8
  assert (writer.steps, probe.steps) == ([5, 10, 12], [1, 6, 11])


@pytest.mark.parametrize('higher', [True, False])
def test_the_best_step_is_the_first_with_the_best_score(tmp_path, higher):
  """As the checkpointer has it; NaN is never the best."""
  sign = 1 if higher else -1
  scores = {3: float('nan'), 6: 1.0, 9: 2.0, 12: 2.0, 15: float('nan')}
  with Checkpointer(tmp_path, higher_is_better=higher) as checkpointer:
    result = fit(
      TRAIN.step,
      TRAIN.init(jnp.ones(3), key=jax.random.key(0)),
      Batches(0),
      num_steps=15,
      task_names=('a', 'b'),
      eval_every=3,
      eval_fn=lambda state: {'score': sign * scores[int(state.step)]},
      select=lambda metrics: metrics['score'],
      checkpointer=checkpointer,
      progress=False,
    )
    assert checkpointer.best_step() == result.best_step == 9
  assert result.best_score == sign * 2.0


def test_lines_are_handed_over_and_the_checkpoint_is_whole(
  tmp_path, monkeypatch
):
  """Before a save what a writer holds back is flushed, and `fit` waits."""

  class Holding(Plain):
    flushed = ()

    def flush(self):
      self.flushed = tuple(self.steps)

  class Watching(Checkpointer):
    def save(self, step, *args, **kwargs):
      saved.append((step, writer.flushed))
      super().save(step, *args, **kwargs)

  def slow(*args):
    time.sleep(0.3)
    write(*args)

  saved, writer, write = [], Holding(), _seal.write
  monkeypatch.setattr(_seal, 'write', slow)
  with Watching(tmp_path) as checkpointer:
    fit(
      TRAIN.step,
      TRAIN.init(jnp.ones(3), key=jax.random.key(0)),
      Batches(0),
      num_steps=4,
      task_names=('a', 'b'),
      eval_every=2,
      writer=writer,
      checkpointer=checkpointer,
      progress=False,
    )
    assert (tmp_path / '4.json').exists()
  assert saved == [(2, (2,)), (4, (2, 4))]
