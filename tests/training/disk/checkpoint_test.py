import dataclasses
import errno
import json
import logging
import pathlib
import shutil
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax.training import Checkpointer, CheckpointError, TrainState


class Method(NamedTuple):
  weights: jax.Array
  nothing: Any
  empty: jax.Array


def make_state(seed=0, step=3):
  key = jax.random.key(seed)
  params = {
    'dense/kernel': jax.random.normal(key, (40, 30)),
    'half': jax.random.normal(key, (7,)).astype(jnp.bfloat16),
    'nested': [{'flag': jnp.array(True)}, {}],
  }
  optimizer = optax.chain(optax.clip(1.0), optax.adam(1e-3))
  return TrainState(
    step=jnp.int32(step),
    params=params,
    model_state={'mean': jnp.full(3, jnp.nan)},
    opt_state=optimizer.init(params),
    method_state=Method(jnp.ones(2), None, jnp.zeros((0, 4), jnp.int8)),
    key=jax.random.split(key, 2),
  )


def raw(x):
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    assert jax.random.key_impl(x) == jax.random.key_impl(jax.random.key(0))
    x = jax.random.key_data(x)
  return x.dtype, x.shape, np.asarray(x).tobytes()


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert raw(x) == raw(y)


def save_steps(directory, scores, **kwargs):
  """Saves a state made from each step as its seed."""
  with Checkpointer(directory, **kwargs) as checkpointer:
    for step, score in scores.items():
      checkpointer.save(step, make_state(step, step), score=score)


def on_disk(directory):
  return sorted(p.name for p in directory.iterdir())


def largest(directory):
  files = [p for p in directory.rglob('*') if p.is_file()]
  return max(files, key=lambda p: p.stat().st_size)


@pytest.mark.parametrize('abstract', [False, True])
def test_round_trip_keeps_bits_and_types(tmp_path, abstract):
  state = make_state()
  example = jax.eval_shape(make_state) if abstract else make_state(seed=1)
  data = {'workers': [1, {'next': 5}]}
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(3, state, data_state=data, meta={'a': [1.5]})
    restored, data_state, meta = checkpointer.restore(example)
  assert_same(restored, state)
  assert isinstance(restored, TrainState)
  assert isinstance(restored.opt_state[1][0], optax.ScaleByAdamState)
  assert data_state == data
  assert meta == {'a': [1.5]}


def test_numpy_leaves_keep_their_types(tmp_path):
  """jax has no 64 bits by default; what was counted in them is not cut."""
  state = {
    'count': np.array(2**40 + 3),
    'scalar': np.int64(2**41),
    'unsigned': np.array([2**63 + 1], np.uint64),
    'mean': np.array([1 / 3, 1e300]),
    'complex': np.array([1 / 3 + 1e-300j]),
    'none': np.zeros((0, 2), np.float64),
    'narrow': np.array([1, 2], np.int16),
    'params': jnp.arange(3.0),
    'key': jax.random.key(1),
  }
  shapes = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in state.items()}
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(1, state)
    for example in (state, shapes):
      restored, _, _ = checkpointer.restore(example)
      assert_same(restored, state)


def test_restored_state_can_be_donated(tmp_path):
  save_steps(tmp_path, {1: None})
  with Checkpointer(tmp_path) as checkpointer:
    state, _, _ = checkpointer.restore(make_state())
  step = jax.jit(
    lambda s: dataclasses.replace(s, step=s.step + 1), donate_argnums=0
  )
  assert int(step(step(state)).step) == 3


def test_data_state_may_be_bytes_and_is_copied(tmp_path):
  data = {'next': 1}
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(1, make_state(), data_state=b'\x00\xff')
    checkpointer.save(2, make_state(), data_state=data)
    data['next'] = 2
    assert checkpointer.restore(make_state())[1] == {'next': 1}
    assert checkpointer.restore(make_state(), step=1)[1] == b'\x00\xff'


def test_state_may_be_donated_while_it_is_saved(tmp_path):
  overwrite = jax.jit(
    lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0
  )
  for step in range(1, 5):
    key = jax.random.key(step)
    tree = {
      str(n): jax.random.normal(jax.random.fold_in(key, n), (n, 1000))
      for n in (1, 30, 500, 1000)
    }
    before = jax.tree.map(lambda x: np.array(x, copy=True), tree)
    with Checkpointer(tmp_path / str(step)) as checkpointer:
      checkpointer.save(step, tree)
      for _ in range(3):
        tree = overwrite(tree)
      jax.block_until_ready(tree)
      restored, _, _ = checkpointer.restore(tree)
    assert_same(restored, before)


@pytest.mark.parametrize(
  'kwargs, scores, kept',
  [
    ({}, {1: 0.1, 2: 0.9, 3: 0.5, 4: 0.9, 5: 0.2}, {2, 5}),
    ({'higher_is_better': False}, {1: 0.1, 2: 0.9, 3: 0.5}, {1, 3}),
    ({}, {1: 0.1, 2: 0.2, 3: 0.3}, {2, 3}),
    ({}, {1: 0.3, 2: float('nan'), 3: None}, {1, 3}),
    ({'keep_best': False}, {1: 0.9, 2: 0.5, 3: 0.1}, {2, 3}),
    ({}, {1: None, 2: None, 3: None}, {2, 3}),
    ({}, {7: 0.3}, {7}),
  ],
)
def test_keeps_last_and_best_or_the_one_before(tmp_path, kwargs, scores, kept):
  save_steps(tmp_path, scores, **kwargs)
  assert on_disk(tmp_path) == sorted(
    name for step in kept for name in (str(step), f'{step}.json')
  )
  with Checkpointer(tmp_path, **kwargs) as checkpointer:
    assert checkpointer.latest_step() == max(scores)
    for step in kept:
      restored, _, _ = checkpointer.restore(make_state(), step=step)
      assert_same(restored, make_state(step, step))


def test_best_step(tmp_path):
  with Checkpointer(tmp_path) as checkpointer:
    assert checkpointer.latest_step() is None
    assert checkpointer.best_step() is None
    for step, score in {1: 0.5, 2: 0.7, 3: 0.7, 4: None}.items():
      checkpointer.save(step, make_state(), score=score)
    assert checkpointer.best_step() == 2
  with Checkpointer(tmp_path, higher_is_better=False) as checkpointer:
    assert checkpointer.best_step() == 2


def flip(directory):
  data = bytearray(largest(directory / '3').read_bytes())
  data[len(data) // 2] ^= 1
  largest(directory / '3').write_bytes(data)


def truncate(directory):
  with open(largest(directory / '3'), 'r+b') as f:
    f.truncate(100)


def delete_file(directory):
  largest(directory / '3').unlink()


def delete_arrays(directory):
  shutil.rmtree(directory / '3')


def empty_seal(directory):
  (directory / '3.json').write_bytes(b'')


def seal_not_an_object(directory):
  (directory / '3.json').write_text('[]')


def change_seal(directory):
  seal = json.loads((directory / '3.json').read_text())
  seal['data_state'] = {'json': 9}
  (directory / '3.json').write_text(json.dumps(seal))


def delete_seal(directory):
  (directory / '3.json').unlink()


DAMAGES = [
  flip,
  truncate,
  delete_file,
  delete_arrays,
  empty_seal,
  seal_not_an_object,
  change_seal,
  delete_seal,
]


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_checkpoint_is_skipped_and_said(tmp_path, damage, caplog):
  save_steps(tmp_path, {1: None, 2: None, 3: None})
  damage(tmp_path)
  with Checkpointer(tmp_path) as checkpointer:
    with caplog.at_level(logging.WARNING):
      restored, _, _ = checkpointer.restore(make_state())
    assert_same(restored, make_state(2, 2))
    assert len(checkpointer.skipped) == 1
    assert str(tmp_path / '3') in checkpointer.skipped[0]
    assert checkpointer.skipped[0] in caplog.text
    assert 'using step 2' in caplog.text
    # The run goes on, and writes that step again.
    assert checkpointer.latest_step() == 2
    checkpointer.save(3, make_state(33, 3))
    restored, _, _ = checkpointer.restore(make_state())
    assert_same(restored, make_state(33, 3))
    assert len(checkpointer.skipped) == 1


def test_damage_never_prunes_the_whole_one(tmp_path):
  save_steps(tmp_path, {1: 0.1, 2: 0.2, 3: 0.9})
  flip(tmp_path)
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.restore(make_state())
    checkpointer.save(4, make_state(4, 4), score=0.0)
    assert checkpointer.latest_step() == 4
    assert checkpointer.best_step() == 2
  assert on_disk(tmp_path) == ['2', '2.json', '4', '4.json']


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path):
  save_steps(tmp_path, {3: None})
  empty_seal(tmp_path)
  with Checkpointer(tmp_path) as checkpointer:
    assert checkpointer.latest_step() == 3
    with pytest.raises(CheckpointError, match='no whole.*3.json is damaged'):
      checkpointer.restore(make_state())


def test_asked_for_step_that_is_damaged_or_missing(tmp_path):
  save_steps(tmp_path, {2: None, 3: None})
  flip(tmp_path)
  with Checkpointer(tmp_path) as checkpointer:
    with pytest.raises(CheckpointError, match='step 3.*digest differs'):
      checkpointer.restore(make_state(), step=3)
    with pytest.raises(CheckpointError, match='step 9.*none was saved'):
      checkpointer.restore(make_state(), step=9)


def test_killed_while_saving_leaves_no_trace_after_the_next(tmp_path):
  save_steps(tmp_path, {1: None, 2: None})
  (tmp_path / '3.orbax-checkpoint-tmp' / 'state').mkdir(parents=True)
  shutil.copytree(tmp_path / '2', tmp_path / '4')
  (tmp_path / '4.json.tmp').write_text('{')
  (tmp_path / 'notes.txt').write_text('mine')
  with Checkpointer(tmp_path) as checkpointer:
    assert checkpointer.latest_step() == 2
    restored, _, _ = checkpointer.restore(make_state())
    assert_same(restored, make_state(2, 2))
    assert all('incomplete' in message for message in checkpointer.skipped)
    checkpointer.save(3, make_state(3, 3))
  assert on_disk(tmp_path) == ['2', '2.json', '3', '3.json', 'notes.txt']


def test_saving_a_step_twice_is_refused(tmp_path):
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(1, make_state())
    with pytest.raises(ValueError, match='step=1 is saved already'):
      checkpointer.save(1, make_state())
    checkpointer.restore(make_state())


@pytest.mark.parametrize(
  'change, named',
  [
    (lambda s: dataclasses.replace(s, step=jnp.float32(1)), 'int32.*float32'),
    (lambda s: dataclasses.replace(s, params={'a': jnp.ones(2)}), "'a'"),
    (lambda s: dataclasses.replace(s, key=jax.random.key(0)), r'key.*\[2\]'),
  ],
)
def test_other_state_is_refused_not_cast(tmp_path, change, named):
  save_steps(tmp_path, {1: None})
  with Checkpointer(tmp_path) as checkpointer:
    with pytest.raises(ValueError, match=f'another state.*{named}'):
      checkpointer.restore(change(make_state()))


def test_leaf_that_is_no_array_is_refused(tmp_path):
  with Checkpointer(tmp_path) as checkpointer:
    with pytest.raises(TypeError, match=r"state\['a'\] is 3"):
      checkpointer.save(1, {'a': 3})


def test_failed_save_is_raised_once_and_the_others_stay(tmp_path, monkeypatch):
  from mtljax.training.disk import _seal

  save_steps(tmp_path, {1: None})
  checkpointer = Checkpointer(tmp_path)
  with monkeypatch.context() as patch:

    def full(*_):
      raise OSError(errno.ENOSPC, 'No space left on device')

    patch.setattr(_seal, 'write', full)
    checkpointer.save(2, make_state())
    with pytest.raises(
      CheckpointError, match=r'step 2 cannot.*No space left.*there: \[1\]'
    ):
      checkpointer.wait()
  assert on_disk(tmp_path) == ['1', '1.json']
  checkpointer.save(2, make_state(2, 2))
  assert checkpointer.latest_step() == 2
  checkpointer.close()


def test_unwritable_directory(tmp_path):
  (tmp_path / 'file').write_text('')
  with Checkpointer(tmp_path / 'file' / 'checkpoints') as checkpointer:
    with pytest.raises(
      CheckpointError, match='Not a directory.*another directory'
    ):
      checkpointer.save(1, make_state())


def test_error_of_the_run_is_not_hidden_by_a_failed_save(tmp_path):
  (tmp_path / '1').write_text('in the way of nothing')
  with pytest.raises(KeyError, match='mine'):
    with Checkpointer(tmp_path) as checkpointer:
      checkpointer.save(1, make_state())
      raise KeyError('mine')


FULL_DISK = """
import resource, sys
import jax, jax.numpy as jnp
from mtljax.training import Checkpointer, exit_on_error

with exit_on_error(), Checkpointer(sys.argv[1]) as checkpointer:
  state = {'w': jax.random.normal(jax.random.key(0), (300, 1000))}
  checkpointer.save(1, state)
  checkpointer.wait()
  limit = (400_000, resource.RLIM_INFINITY)  # bytes a file
  resource.setrlimit(resource.RLIMIT_FSIZE, limit)
  checkpointer.save(2, state)
  checkpointer.wait()
"""


def test_full_disk_is_one_sentence(tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', FULL_DISK, str(tmp_path)],
    cwd=pathlib.Path(mtljax.__file__).parents[1],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  assert done.stderr.count('\n') == 1, done.stderr
  assert done.stderr.startswith('error: the checkpoint of step 2 cannot be')
  assert 'File too large' in done.stderr
  assert 'another directory' in done.stderr
  assert on_disk(tmp_path) == ['1', '1.json']
  with Checkpointer(tmp_path) as checkpointer:
    example = {'w': jnp.zeros((300, 1000))}
    restored, _, _ = checkpointer.restore(example)
  assert_same(
    restored, {'w': jax.random.normal(jax.random.key(0), (300, 1000))}
  )


def test_orbax_is_quiet(tmp_path, capfd, caplog):
  caplog.set_level(logging.INFO)
  save_steps(tmp_path, {1: None, 2: None})
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.restore(make_state())
  assert capfd.readouterr() == ('', '')
  assert not caplog.records


@pytest.mark.parametrize('dtype', ['float64', 'int64', 'complex128', 'uint64'])
def test_arrays_of_a_scope_keep_their_bits(tmp_path, dtype):
  """Where ``jax.enable_x64`` holds in this thread only."""
  with jax.enable_x64(True), Checkpointer(tmp_path) as checkpointer:
    value = 2**40 + 7 if 'int' in dtype else 1 / 3
    state = {
      'wide': jnp.full(3, value, dtype),
      'narrow': jnp.ones(2, 'float32'),
      'key': jax.random.key(1),
    }
    checkpointer.save(1, state)
    found = checkpointer.restore(jax.tree.map(lambda x: x, state))[0]
    assert isinstance(found['wide'], jax.Array)
    assert found['wide'].dtype == dtype
    np.testing.assert_array_equal(found['wide'], state['wide'])
    assert found['narrow'].dtype == 'float32'
