import contextlib
import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtljax.training import (
  TIMING,
  Checkpointer,
  JsonlWriter,
  NonFiniteLossError,
  Probe,
  TrainState,
  fit,
)

TASKS = ('a', 'b')
optimizer = optax.adam(0.05)


class Batches:
  """Grain's iterator protocol over noise made from the position."""

  def __init__(self, bad_at=None, size=None):
    self.position = 0
    self.bad_at = bad_at
    self.size = size

  def __iter__(self):
    return self

  def __next__(self):
    if self.position == self.size:
      raise StopIteration
    self.position += 1
    x = np.random.default_rng(self.position).normal(size=(8, 3))
    if self.position == self.bad_at:
      x[0] = np.nan
    return {'x': x.astype(np.float32)}

  def get_state(self):
    return {'position': self.position}

  def set_state(self, state):
    self.position = state['position']


def task_losses(params, batch, key):
  x = batch['x'] + 0.1 * jax.random.normal(key, batch['x'].shape)
  clean = jnp.mean((jnp.nan_to_num(x) @ params['w']) ** 2)
  return jnp.stack([clean + jnp.sum(params['w']), jnp.mean(x @ params['w'])])


@jax.jit
def plain_step(state, batch):
  key = jax.random.fold_in(state.key, state.step)

  def total(params):
    losses = task_losses(params, batch, key)
    return losses.sum(), losses

  grads, losses = jax.grad(total, has_aux=True)(state.params)
  updates, opt_state = optimizer.update(grads, state.opt_state)
  metrics = {
    'losses': losses,
    'weights': jnp.array([0.25, 0.75]),
    'cosines': jnp.array([[1.0, 0.5], [0.5, 1.0]]),
    'gradient_norm': optax.tree.norm(grads),
  }
  state = dataclasses.replace(
    state,
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    opt_state=opt_state,
  )
  return state, metrics


step_fn = jax.jit(plain_step, donate_argnums=0)


def init(seed=0):
  params = {'w': jax.random.normal(jax.random.key(seed), (3,))}
  return TrainState(
    step=jnp.int32(0),
    params=params,
    model_state={},
    opt_state=optimizer.init(params),
    method_state=(),
    key=jax.random.key(1),
  )


def eval_fn(state):
  return {'accuracy/a': jnp.sin(state.params['w'][0] * 5), 'count': 3}


def run(out, num_steps, batches=None, **kwargs):
  out.mkdir(exist_ok=True)
  writer = JsonlWriter(out / 'metrics.jsonl')
  kwargs = {'log_every': 3, 'eval_every': 5, 'progress': False} | kwargs
  with (
    contextlib.closing(writer),
    Checkpointer(out / 'checkpoints') as checkpointer,
  ):
    return fit(
      kwargs.pop('step_fn', step_fn),
      init(),
      batches or Batches(),
      num_steps=num_steps,
      task_names=TASKS,
      eval_fn=eval_fn,
      select=lambda metrics: metrics['accuracy/a'],
      writer=writer,
      checkpointer=checkpointer,
      **kwargs,
    )


def lines(out):
  found = []
  for text in (out / 'metrics.jsonl').read_text().splitlines():
    line = json.loads(text)
    assert line['kind'] == 'eval' or set(TIMING) <= set(line)
    found.append({k: v for k, v in line.items() if k not in TIMING})
  return found


def assert_same_state(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


def test_lines_and_their_means(tmp_path):
  run(tmp_path, 12, steps_per_epoch=4)
  found = lines(tmp_path)
  assert [(x['kind'], x['step']) for x in found] == [
    ('train', 3),
    ('train', 5),
    ('eval', 5),
    ('train', 6),
    ('train', 9),
    ('train', 10),
    ('eval', 10),
    ('train', 12),
    ('eval', 12),
  ]
  state, batches, losses = init(), Batches(), []
  for _ in range(9):
    state, metrics = plain_step(state, next(batches))
    losses.append(np.asarray(metrics['losses'], np.float64))
  mean = np.mean(losses[6:9], axis=0).astype(np.float32)
  line = next(x for x in found if x['step'] == 9)
  assert np.float32(line['loss/a']) == mean[0]
  assert np.float32(line['loss/b']) == mean[1]
  assert line.pop('gradient_norm') > 0
  del line['loss/a'], line['loss/b']
  assert line == {
    'kind': 'train',
    'step': 9,
    'epoch': 2.25,
    'weight/a': 0.25,
    'weight/b': 0.75,
    'cosine/a,b': 0.5,
  }
  evaluation = found[-1]
  assert evaluation['split'] == 'validation'
  assert evaluation['count'] == 3


def test_result_and_best(tmp_path):
  result = run(tmp_path, 40)
  scores = {
    x['step']: x['accuracy/a'] for x in lines(tmp_path) if x['kind'] == 'eval'
  }
  best = max(scores, key=scores.get)
  assert len(scores) == 8
  assert best != 40
  assert result.best_step == best
  assert np.float32(result.best_score) == np.float32(scores[best])
  assert np.float32(result.eval_metrics['accuracy/a']) == np.float32(scores[40])
  assert result.resumed_from is None
  assert int(result.state.step) == 40
  with Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    assert checkpointer.best_step() == best
    assert checkpointer.latest_step() == 40
    state, _, _ = checkpointer.restore(init())
  assert_same_state(state, result.state)


class Stop(Exception):
  pass


@pytest.mark.parametrize('stop_at', [4, 5, 9, 14, 20])
def test_resumed_run_has_the_same_bits_and_lines(tmp_path, stop_at):
  whole = run(tmp_path / 'whole', 22)

  def stop(step, state, metrics):
    if step == stop_at:
      raise Stop

  with pytest.raises(Stop):
    run(tmp_path / 'cut', 22, callback=stop)
  resumed = run(tmp_path / 'cut', 22)
  # The callback comes before the checkpoint of its step.
  expected = (stop_at - 1) // 5 * 5
  assert resumed.resumed_from == (expected or None)
  assert_same_state(resumed.state, whole.state)
  assert lines(tmp_path / 'cut') == lines(tmp_path / 'whole')
  assert (resumed.best_step, resumed.best_score) == (
    whole.best_step,
    whole.best_score,
  )
  assert resumed.eval_metrics == whole.eval_metrics


def probe_fn(state, batch):
  return {
    'at': state.step + 0,
    'x': batch['x'][:2],
    'none': jnp.full(1, jnp.nan),
  }


def run_probed(out, num_steps, **kwargs):
  out.mkdir(exist_ok=True)
  with contextlib.closing(
    JsonlWriter(out / 'probe.jsonl', arrays=True)
  ) as writer:
    probe = Probe(fn=probe_fn, every=3, writer=writer)
    run(out, num_steps, probe=probe, **kwargs)


def probed(out):
  text = (out / 'probe.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def test_probe_sees_state_and_batch_before_the_step(tmp_path):
  run_probed(tmp_path, 8, steps_per_epoch=4)
  batches = Batches()
  own = [next(batches)['x'] for _ in range(8)]
  found = probed(tmp_path)
  assert [line['step'] for line in found] == [1, 4, 7]
  for line in found:
    step = line['step']
    assert line['at'] == step - 1
    assert line['kind'] == 'probe'
    assert line['epoch'] == step / 4
    assert line['none'] == ['NaN']
    np.testing.assert_array_equal(np.float32(line['x']), own[step - 1][:2])
  with pytest.raises(ValueError, match='every=0'):
    Probe(fn=probe_fn, every=0, writer=None)


def test_resumed_run_has_measured_nothing_twice(tmp_path):
  def stop(step, state, metrics):
    if step == 9:
      raise Stop

  run_probed(tmp_path / 'whole', 12)
  with pytest.raises(Stop):
    run_probed(tmp_path / 'cut', 12, callback=stop, log_every=1)
  # Step 7 came after the checkpoint of step 5, and is measured again.
  assert [line['step'] for line in probed(tmp_path / 'cut')] == [1, 4, 7]
  run_probed(tmp_path / 'cut', 12)
  found = probed(tmp_path / 'cut')
  assert found == probed(tmp_path / 'whole')
  assert [line['step'] for line in found] == [1, 4, 7, 10]


def test_finished_run_is_not_run_again(tmp_path):
  whole = run(tmp_path, 7)
  before = lines(tmp_path)
  again = run(tmp_path, 7)
  assert again.resumed_from == 7
  assert_same_state(again.state, whole.state)
  assert again.eval_metrics == whole.eval_metrics
  assert lines(tmp_path) == before


def test_longer_run_goes_on(tmp_path):
  run(tmp_path / 'a', 10)
  longer = run(tmp_path / 'a', 20)
  assert longer.resumed_from == 10
  assert_same_state(longer.state, run(tmp_path / 'b', 20).state)
  with pytest.raises(ValueError, match='num_steps=15 has passed.*step 20'):
    run(tmp_path / 'a', 15)


def test_damaged_checkpoint_is_skipped_and_the_end_is_the_same(tmp_path):
  whole = run(tmp_path / 'whole', 20)
  run(tmp_path / 'cut', 15)
  with Checkpointer(tmp_path / 'cut' / 'checkpoints') as checkpointer:
    earlier = checkpointer.best_step()
  assert earlier < 15
  (tmp_path / 'cut' / 'checkpoints' / '15' / '_CHECKPOINT_METADATA').unlink()
  resumed = run(tmp_path / 'cut', 20)
  assert resumed.resumed_from == earlier
  assert '15/_CHECKPOINT_METADATA is missing' in resumed.skipped[0]
  assert_same_state(resumed.state, whole.state)
  assert lines(tmp_path / 'cut') == lines(tmp_path / 'whole')


@pytest.mark.parametrize('bad_at', [6, 7, 10, 11])
def test_non_finite_loss_stops_and_keeps_the_last_good(tmp_path, bad_at):
  with pytest.raises(NonFiniteLossError) as caught:
    run(tmp_path, 20, Batches(bad_at=bad_at))
  error = caught.value
  assert (error.task, error.step) == ('b', bad_at)
  good = (bad_at - 1) // 5 * 5
  message = f"the loss of task 'b' is nan at step {bad_at}; the run was stopped"
  assert str(error).startswith(message)
  assert f'last good checkpoint is step {good} in {tmp_path}' in str(error)
  assert max(x['step'] for x in lines(tmp_path)) < bad_at
  with Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    state, data_state, _ = checkpointer.restore(init())
  assert int(state.step) == data_state['position'] == good
  assert np.isfinite(state.params['w']).all()


def test_non_finite_loss_is_seen_even_if_lines_are_rare(tmp_path):
  steps = []
  with pytest.raises(NonFiniteLossError, match='no checkpoint was kept'):
    run(
      tmp_path,
      10_000,
      Batches(bad_at=30),
      log_every=5_000,
      eval_every=5_000,
      callback=lambda step, *_: steps.append(step),
    )
  assert steps[-1] <= 128


def test_finite_loss_with_broken_update_is_not_saved(tmp_path):
  @jax.jit
  def overflow(state, batch):
    state, metrics = plain_step(state, batch)
    w = jnp.where(state.step == 10, jnp.inf, state.params['w'])
    return dataclasses.replace(state, params={'w': w}), metrics

  with pytest.raises(NonFiniteLossError, match='parameters are not after st'):
    run(tmp_path, 20, step_fn=overflow)
  with Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    assert checkpointer.latest_step() == 5


def test_no_wait_for_the_device_between_lines(monkeypatch):
  waits = []
  get = jax.device_get
  monkeypatch.setattr(jax, 'device_get', lambda x: waits.append(1) or get(x))
  fit(
    step_fn,
    init(),
    Batches(),
    num_steps=100,
    log_every=50,
    task_names=TASKS,
    progress=False,
  )
  assert len(waits) == 2


def test_callback_sees_every_step():
  seen = []
  fit(
    step_fn,
    init(),
    Batches(),
    num_steps=4,
    task_names=TASKS,
    progress=False,
    callback=lambda step, state, m: seen.append((step, int(state.step), *m)),
  )
  assert [x[:3] for x in seen] == [(n, n, 'cosines') for n in range(1, 5)]


def test_lower_is_better(tmp_path):
  with Checkpointer(tmp_path, higher_is_better=False) as checkpointer:
    result = fit(
      step_fn,
      init(),
      Batches(),
      num_steps=40,
      eval_every=5,
      task_names=TASKS,
      eval_fn=eval_fn,
      select=lambda metrics: metrics['accuracy/a'],
      checkpointer=checkpointer,
      progress=False,
    )
    assert checkpointer.best_step() == result.best_step
  scores = []
  fit(
    step_fn,
    init(),
    Batches(),
    num_steps=40,
    eval_every=5,
    task_names=TASKS,
    eval_fn=lambda s: scores.append(float(eval_fn(s)['accuracy/a'])) or {},
    progress=False,
  )
  assert result.best_score == min(scores)


@pytest.mark.parametrize('tty', [False, True])
def test_progress_shows_step_losses_and_throughput(monkeypatch, capsys, tty):
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: tty)
  monkeypatch.setenv('COLUMNS', '160')
  monkeypatch.setenv('TERM', 'xterm')
  fit(step_fn, init(), Batches(), num_steps=4, log_every=2, task_names=TASKS)
  captured = capsys.readouterr()
  assert captured.out == ''
  for text in ('4/4', 'a ', 'b ', 'examples/s'):
    assert text in captured.err
  if not tty:
    assert captured.err.startswith('step 2/4  a ')
    assert captured.err.count('\n') == 2


def test_progress_without_rich(monkeypatch, capsys):
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
  monkeypatch.setitem(sys.modules, 'rich', None)
  fit(step_fn, init(), Batches(), num_steps=1, task_names=TASKS)
  assert capsys.readouterr().err.startswith('step 1/1  a ')


def test_no_progress_is_silent(tmp_path, capfd):
  run(tmp_path, 10)
  assert capfd.readouterr() == ('', '')


def gives(**metrics):
  return {'step_fn': lambda s, b: (plain_step(s, b)[0], metrics)}


def bad_fit(**kwargs):
  given = {'num_steps': 3, 'task_names': TASKS, 'progress': False} | kwargs
  batches = given.pop('batches', Batches())
  return fit(given.pop('step_fn', step_fn), init(), batches, **given)


@pytest.mark.parametrize(
  'kwargs, message',
  [
    ({'num_steps': 0}, 'num_steps=0 has to be at least 1'),
    ({'log_every': 0}, 'log_every=0'),
    ({'eval_every': 0}, 'eval_every=0'),
    ({'task_names': 'ab'}, "task_names='ab'"),
    ({'task_names': ('a', 'a')}, 'distinct'),
    ({'batches': Batches(size=1)}, 'ended before step 2 of num_steps=3'),
    (
      {'step_fn': lambda s, b: (s, plain_step(s, b)[1])},
      'state.step is 0 after step 3',
    ),
    (gives(losses=jnp.ones(3)), 'losses.*3.*2 task_names'),
    (gives(), "'losses'"),
    (
      gives(losses=jnp.ones(2), odd=jnp.ones((3, 4))),
      r"metric 'odd' of the step has shape \(3, 4\)",
    ),
  ],
)
def test_bad_arguments(kwargs, message):
  with pytest.raises(ValueError, match=message):
    bad_fit(**kwargs)


def test_iterator_that_cannot_resume_is_refused(tmp_path):
  with Checkpointer(tmp_path) as checkpointer:
    with pytest.raises(TypeError, match='no get_state and set_state'):
      bad_fit(batches=iter([]), checkpointer=checkpointer)


def test_grain_iterator(tmp_path):
  import grain

  def batches():
    data = grain.MapDataset.range(100).shuffle(seed=1).repeat()
    data = data.map(lambda n: {'x': np.full(3, n / 100, np.float32)})
    return iter(data.batch(8, drop_remainder=True).to_iter_dataset())

  whole = run(tmp_path / 'whole', 20, batches())
  run(tmp_path / 'cut', 10, batches())
  resumed = run(tmp_path / 'cut', 20, batches())
  assert resumed.resumed_from == 10
  assert_same_state(resumed.state, whole.state)
  assert lines(tmp_path / 'cut') == lines(tmp_path / 'whole')
