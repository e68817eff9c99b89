import hashlib
import json
import math
import struct
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies

from mtljax.training import (
  JsonlWriter,
  MultiWriter,
  TensorBoardWriter,
  WandbWriter,
)
from mtljax.training.disk.writers import _number


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_jsonl_has_tags_step_and_scalars(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  writer = JsonlWriter(path)
  writer.write(
    3,
    {'a': jnp.float32(0.1), 'b': 7, 'c': np.bool_(True), 'd': None},
    kind='eval',
    split='validation',
  )
  assert path.read_text() == (
    '{"kind": "eval", "split": "validation", "step": 3, '
    '"a": 0.1, "b": 7, "c": true, "d": null}\n'
  )
  writer.close()


@given(strategies.floats(width=32))
def test_float32_round_trips(x):
  back = np.float32(float(json.loads(json.dumps(_number('x', np.float32(x))))))
  assert back.tobytes() == np.float32(x).tobytes() or math.isnan(x)


@given(strategies.floats())
def test_float64_round_trips(x):
  back = float(json.loads(json.dumps(_number('x', x))))
  assert back == x or (math.isnan(back) and math.isnan(x))


def test_bfloat16_round_trips():
  for x in jnp.array([0.1, 3e38, 1e-40], jnp.bfloat16):
    assert jnp.bfloat16(_number('x', x)) == x


def test_non_finite_is_valid_json():
  values = [_number('x', np.float32(x)) for x in ('nan', 'inf', '-inf')]
  assert values == ['NaN', 'Infinity', '-Infinity']


@pytest.mark.parametrize('value', [np.ones(2), 'text', 1j, [1], {}])
def test_only_real_scalars(tmp_path, value):
  writer = JsonlWriter(tmp_path / 'metrics.jsonl')
  with pytest.raises(TypeError, match="metric 'a' has to be a real scalar"):
    writer.write(1, {'a': value})
  writer.close()
  assert (tmp_path / 'metrics.jsonl').read_bytes() == b''


def test_truncate_drops_later_and_half_lines(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  writer = JsonlWriter(path)
  for step in (1, 2, 2, 3, 4):
    writer.write(step, {'a': step})
  writer.close()
  with open(path, 'a') as f:
    f.write('{"step": 1, "a": ')
  writer = JsonlWriter(path)
  writer.truncate_after(2)
  writer.write(3, {'a': 30})
  writer.close()
  assert [(x['step'], x['a']) for x in lines(path)] == [
    (1, 1),
    (2, 2),
    (2, 2),
    (3, 30),
  ]


def test_whole_json_without_its_newline_is_dropped(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 1}\n{"step": 1}')
  writer = JsonlWriter(path)
  writer.truncate_after(5)
  writer.close()
  assert path.read_text() == '{"step": 1}\n'


def test_jsonl_full_disk(tmp_path):
  writer = JsonlWriter(tmp_path / 'metrics.jsonl')
  writer.close()
  with open('/dev/full', 'wb', buffering=0) as full:
    writer._file = full
    with pytest.raises(OSError, match='metrics cannot be written.*directory'):
      writer.write(1, {})


def test_jsonl_unwritable(tmp_path):
  with pytest.raises(OSError, match='metrics cannot be written.*directory'):
    JsonlWriter(tmp_path / 'missing' / 'metrics.jsonl')


def events(directory):
  """Event files: (length, checksum, message, checksum) again and again."""
  from tensorboardX.proto import event_pb2

  found = []
  for path in sorted(directory.iterdir()):
    data = path.read_bytes()
    while data:
      (size,) = struct.unpack('<Q', data[:8])
      found.append(event_pb2.Event.FromString(data[12 : 12 + size]))
      data = data[16 + size :]
  return found


def test_tensorboard(tmp_path):
  writer = TensorBoardWriter(tmp_path)
  writer.write(1, {'loss/a': np.float32(0.5), 'no': None}, kind='train')
  writer.write(1, {'loss/a': 0.25}, kind='eval', split='validation')
  writer.write(2, {'loss/a': math.nan}, kind='train')
  writer.flush()
  writer.truncate_after(1)
  writer.write(2, {'loss/a': 0.125}, kind='train')
  writer.close()
  found = events(tmp_path)
  points = [
    (e.step, v.tag, v.simple_value) for e in found for v in e.summary.value
  ]
  assert points[:2] == [
    (1, 'train/loss/a', 0.5),
    (1, 'validation/loss/a', 0.25),
  ]
  assert math.isnan(points[2][2])
  assert points[3:] == [(2, 'train/loss/a', 0.125)]
  starts = [e.step for e in found if e.session_log.status == 1]
  assert starts == [2]


@pytest.mark.parametrize(
  'module, make, fix',
  [
    ('tensorboardX', lambda: TensorBoardWriter('x'), r'mtljax\[tensorboard\]'),
    ('wandb', WandbWriter, r'mtljax\[wandb\]'),
  ],
)
def test_missing_package_names_the_fix(monkeypatch, module, make, fix):
  monkeypatch.setitem(sys.modules, module, None)
  with pytest.raises(ImportError, match=f'pip install {fix}'):
    make()


def test_wandb(monkeypatch):
  calls = []
  run = types.SimpleNamespace(
    log=lambda values, step: calls.append((step, values)),
    finish=lambda: calls.append('finish'),
  )

  def init(**kwargs):
    calls.append(kwargs)
    return run

  monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(init=init))
  writer = WandbWriter(project='p', id='one')
  writer.truncate_after(3)
  writer.write(4, {'a': jnp.float32(0.5), 'b': None}, kind='train')
  writer.flush()
  writer.close()
  assert calls == [
    {'project': 'p', 'id': 'one', 'resume': 'allow'},
    (4, {'train/a': 0.5}),
    'finish',
  ]


def test_multi_writer(tmp_path):
  paths = [tmp_path / 'a', tmp_path / 'b']
  writer = MultiWriter([JsonlWriter(path) for path in paths])
  writer.write(1, {'x': 1}, kind='train')
  writer.write(2, {'x': 2}, kind='train')
  writer.truncate_after(1)
  writer.flush()
  writer.close()
  for path in paths:
    assert lines(path) == [{'kind': 'train', 'step': 1, 'x': 1}]


def test_marks_count_what_the_file_held_before(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 1}\n')
  writer = JsonlWriter(path)
  writer.write(2, {})
  writer.close()
  text = path.read_bytes()
  digest = hashlib.sha256(text).hexdigest()
  assert writer.mark() == {'metrics.jsonl': {'lines': 2, 'sha256': digest}}
  again = JsonlWriter(path)
  again.truncate_after(9, writer.mark())
  again.close()
  assert again.mark() == writer.mark()
  assert path.read_bytes() == text


def test_files_of_one_name_have_no_mark(tmp_path):
  """One mark cannot stand for both: the step says where to cut them."""
  for folder in ('a', 'b'):
    (tmp_path / folder).mkdir()
  paths = [tmp_path / 'a/m.jsonl', tmp_path / 'b/m.jsonl', tmp_path / 'n.jsonl']
  writers = [JsonlWriter(path) for path in paths]
  writers[0].write(1, {'x': 0})
  writer = MultiWriter(writers)
  writer.write(2, {'x': 1})
  assert set(writer.mark()) == {'n.jsonl'}
  writer.truncate_after(2, writer.mark())
  writer.close()
  assert [len(lines(path)) for path in paths] == [2, 1, 1]
