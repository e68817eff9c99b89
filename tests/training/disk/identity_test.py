"""A run is its configuration, and versions, code and data of its numbers."""

import pytest

from mtljax.training import ConfigMismatchError, open_run
from mtljax.training.disk import _json

CONFIG = {'seed': 1}
THEN = {
  'versions': {'jax': '1', 'numpy': '2'},
  'code': {'mtljax': 'a'},
  'data': {'digits': {'train': 'x', 'test': 'y'}},
}
CHANGES = [
  (
    {'versions': {'jax': '3', 'numpy': '2'}},
    'versions.jax (there "1", now "3")',
  ),
  ({'code': {'mtljax': 'b'}}, 'code.mtljax (there "a", now "b")'),
  (
    {'data': {'digits': {'train': 'z', 'test': 'y'}}},
    'data.digits.train (there "x", now "z")',
  ),
  (
    {'versions': {'jax': '1', 'numpy': '2', 'flax': '1'}},
    'versions.flax (there absent, now "1")',
  ),
]


def start(out, identity, **kwargs):
  run = open_run(out, CONFIG, identity=identity, **kwargs)
  run.release()
  return _json.read(out / 'config.json')


@pytest.mark.parametrize(('change', 'said'), CHANGES)
def test_another_identity_is_refused_by_both_values(tmp_path, change, said):
  before = start(tmp_path, THEN)
  assert before['identity'] == THEN
  with pytest.raises(ConfigMismatchError) as caught:
    start(tmp_path, THEN | change)
  message = str(caught.value)
  for part in ('not finished', said, 'force=True', 'another directory'):
    assert part in message
  assert message.count('there') == 1  # nothing else differs
  assert _json.read(tmp_path / 'config.json') == before


@pytest.mark.parametrize(('change', 'said'), CHANGES)
def test_force_goes_on_and_says_so(tmp_path, change, said):
  start(tmp_path, THEN)
  after = start(tmp_path, THEN | change, force=True)
  assert after['identity'] == THEN | change
  (entry,) = after['history']
  ((name, values),) = entry['changed'].items()
  assert said == f'{name} (there {values[0]}, now {values[1]})'
  # From here on it is that identity, and the history stays.
  again = start(tmp_path, THEN | change)
  assert again['history'] == after['history']
  with pytest.raises(ConfigMismatchError):
    start(tmp_path, THEN)


def test_a_finished_run_keeps_the_identity_of_its_numbers(tmp_path):
  start(tmp_path, THEN)
  now = THEN | {'code': {'mtljax': 'b'}}
  after = start(tmp_path, now, finished=True)
  assert after['identity'] == THEN and 'history' not in after


def test_what_was_changed_on_purpose_is_kept(tmp_path):
  start(tmp_path, THEN)
  changed = {'sweep of runs/mgda/seed_0': ('"loop"', '"vmap"')}
  after = start(tmp_path, THEN, changed=changed)
  (entry,) = after['history']
  assert entry['changed'] == {k: list(v) for k, v in changed.items()}


def test_an_older_folder_is_noted_from_here_on(tmp_path):
  start(tmp_path, None)
  after = start(tmp_path, THEN)
  assert after['identity'] == THEN
  assert after['history'][0]['changed'] == {
    'identity': ['absent', 'noted from here on']
  }


@pytest.mark.parametrize('history', ['text', {'a': 1}, [1, None]])
@pytest.mark.parametrize('identity', ['text', [1], None, {}])
def test_an_identity_and_history_of_other_forms(tmp_path, identity, history):
  odd = _json.seal(CONFIG | {'identity': identity, 'history': history})
  (tmp_path / 'config.json').write_text(_json.dumps(odd))
  with pytest.raises(ConfigMismatchError, match='versions.jax'):
    start(tmp_path, THEN)
  assert start(tmp_path, THEN, force=True)['identity'] == THEN
