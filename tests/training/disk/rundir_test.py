import json
import os
import pathlib

import pytest

from mtljax.training import (
  ConfigMismatchError,
  NonFiniteLossError,
  OutputError,
  exit_on_error,
  open_run,
)

CONFIG = {'seed': 1, 'method': {'name': 'cagrad', 'c': 0.4}, 'shape': (1, 2)}


def test_new_run_then_resume(tmp_path):
  first = open_run(tmp_path / 'a' / 'b', CONFIG)
  again = open_run(tmp_path / 'a' / 'b', CONFIG)
  assert (first.resumed, again.resumed) == (False, True)
  assert first.path == tmp_path / 'a' / 'b'
  assert sorted(os.listdir(first.path)) == ['.lock', 'config.json']
  assert json.loads((first.path / 'config.json').read_text())['seed'] == 1


def test_difference_names_keys_values_and_fix(tmp_path):
  open_run(tmp_path, CONFIG)
  other = {'method': {'name': 'cagrad', 'c': 0.5}, 'shape': (1, 2), 'new': None}
  with pytest.raises(ConfigMismatchError) as caught:
    open_run(tmp_path, other)
  message = str(caught.value)
  assert 'method.c (there 0.4, now 0.5)' in message
  assert 'new (there absent, now null)' in message
  assert 'seed (there 1, now absent)' in message
  assert 'shape' not in message
  assert 'method.name' not in message
  assert 'directory=' in message
  assert 'resume=False' in message
  assert json.loads((tmp_path / 'config.json').read_text())['seed'] == 1


def test_ignored_keys_may_change_and_are_kept_up_to_date(tmp_path):
  open_run(tmp_path, CONFIG)
  config = CONFIG | {'seed': 2}
  assert open_run(tmp_path, config, ignore=['seed']).resumed
  assert open_run(tmp_path, config).resumed


def test_nan_and_paths_compare_equal_to_themselves(tmp_path):
  config = {'a': float('nan'), 'b': pathlib.Path('x')}
  open_run(tmp_path, config)
  assert open_run(tmp_path, config).resumed


def test_no_resume_moves_the_old_run_aside(tmp_path):
  out = tmp_path / 'run'
  for seed in range(3):
    run = open_run(out, {'seed': seed}, resume=False)
    assert not run.resumed
    run.metrics.write_text(f'{seed}')
  assert (tmp_path / 'run.bak-1' / 'metrics.jsonl').read_text() == '0'
  assert (tmp_path / 'run.bak-2' / 'metrics.jsonl').read_text() == '1'
  assert run.metrics.read_text() == '2'


def test_empty_folder_is_not_moved(tmp_path):
  open_run(tmp_path / 'run', CONFIG, resume=False)
  assert os.listdir(tmp_path) == ['run']


@pytest.mark.parametrize('name', ['checkpoints', 'metrics.jsonl'])
def test_run_without_configuration_is_refused(tmp_path, name):
  (tmp_path / name).mkdir()
  with pytest.raises(ConfigMismatchError, match=f'{name} but no config.json'):
    open_run(tmp_path, CONFIG)


def test_damaged_configuration_is_refused(tmp_path):
  (tmp_path / 'config.json').write_text('{"seed": ')
  with pytest.raises(
    ConfigMismatchError, match='damaged config.json.*another directory'
  ):
    open_run(tmp_path, CONFIG)


def test_out_below_a_file(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OutputError, match='directory=.*Not a directory.*choose'):
    open_run(tmp_path / 'file' / 'run', CONFIG)


def test_out_is_a_file(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OutputError, match='directory=.*File exists'):
    open_run(tmp_path / 'file', CONFIG)


def test_not_permitted(tmp_path, monkeypatch):
  def refuse(*_):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(pathlib.Path, 'write_bytes', refuse)
  with pytest.raises(OutputError, match='directory=.*Permission denied'):
    open_run(tmp_path, CONFIG)


@pytest.mark.parametrize(
  'error',
  [
    OutputError('why'),
    ConfigMismatchError('why'),
    NonFiniteLossError('why', step=1, task='a'),
  ],
)
def test_exit_on_error(error):
  with pytest.raises(SystemExit) as caught, exit_on_error():
    raise error
  assert caught.value.code == 'error: why'


def test_bugs_pass_through():
  with pytest.raises(KeyError), exit_on_error():
    raise KeyError
