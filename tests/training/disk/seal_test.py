"""A checkpoint is whole or it does not exist, whatever fails and when."""

import shutil

import jax.numpy as jnp
import pytest

from mtljax.training import Checkpointer, CheckpointError
from mtljax.training.disk import _seal


def save(directory, scores):
  with Checkpointer(directory) as checkpointer:
    for step, score in scores.items():
      checkpointer.save(step, {'w': jnp.full(3, float(step))}, score=score)


def restore(directory):
  with Checkpointer(directory) as checkpointer:
    state, _, _ = checkpointer.restore({'w': jnp.zeros(3)})
  return float(state['w'][0]), checkpointer.skipped


def damage(directory):
  path = max(directory.rglob('*'), key=lambda p: p.stat().st_size * p.is_file())
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def test_of_many_damaged_ones_the_newest_whole_is_found(tmp_path):
  save(tmp_path, {1: 0.9, 2: 0.5})
  damage(tmp_path / '2')
  for step in ('3', '4'):  # saves that were cut short
    (tmp_path / step).mkdir()
  found, skipped = restore(tmp_path)
  assert found == 1
  assert len(skipped) == 3
  assert ['incomplete' in text for text in skipped] == [True, True, False]


def test_a_copy_under_another_number_is_not_that_step(tmp_path):
  save(tmp_path, {1: 0.9})
  shutil.copytree(tmp_path / '1', tmp_path / '2')
  shutil.copy(tmp_path / '1.json', tmp_path / '2.json')
  found, (skipped,) = restore(tmp_path)
  assert found == 1
  assert 'is that of step 1' in skipped


def test_what_is_half_removed_no_longer_exists(tmp_path, monkeypatch):
  save(tmp_path, {1: 0.9, 2: 0.5})

  def fail(path):
    raise OSError(5, 'Input/output error')

  monkeypatch.setattr(shutil, 'rmtree', fail)
  with pytest.raises(OSError, match='Input/output'):
    _seal.remove(tmp_path, {2})
  assert _seal.steps_on_disk(tmp_path, sealed=True) == {1}
  assert (tmp_path / '2').is_dir()


def test_a_sealed_one_stays_where_tidying_up_fails(tmp_path, monkeypatch):
  save(tmp_path, {1: 0.9, 2: 0.5})
  remove = _seal.remove

  def fail(directory, steps):
    if 2 in steps:
      raise OSError(5, 'Input/output error')
    remove(directory, steps)

  monkeypatch.setattr(_seal, 'remove', fail)
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(3, {'w': jnp.full(3, 3.0)}, score=0.7)
    with pytest.raises(CheckpointError, match=r'there: \[1, 2, 3\]'):
      checkpointer.wait()
  assert restore(tmp_path) == (3, [])
