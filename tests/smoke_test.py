"""The list of smoke tests names tests that are there."""

import smoke

FILES = {
  path: path.read_text()
  for path in smoke.TESTS.rglob('*_test.py')
  if 'helpers' not in path.parts
}


def test_every_name_is_that_of_a_test():
  for folder, names in smoke.SMOKE.items():
    assert len(set(names)) == len(names)
    texts = [x for path, x in FILES.items() if smoke.folder_of(path) == folder]
    for name in names:
      start = f'\ndef {name.partition("[")[0]}('
      assert any(start in text for text in texts), (folder, name)


def test_every_folder_is_in_it():
  assert {smoke.folder_of(path) for path in FILES} == set(smoke.SMOKE)
  assert any(map(smoke.holds_any, FILES))
  assert not all(map(smoke.holds_any, FILES))
