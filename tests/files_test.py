"""Files are replaced in one piece."""

import os

import pytest

from mtljax import _files


def test_text_is_replaced_and_a_link_is_not_followed(tmp_path):
  outside = tmp_path / 'outside'
  outside.write_text('theirs')
  path = tmp_path / 'report.html'
  path.symlink_to(outside)
  _files.replace_text(path, 'ours')
  assert path.read_text() == 'ours' and not path.is_symlink()
  assert outside.read_text() == 'theirs'
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    'outside',
    'report.html',
  ]


@pytest.mark.parametrize(
  'error', [OSError(28, 'no space'), KeyboardInterrupt()]
)
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, error):
  path = tmp_path / 'summary.json'
  path.write_text('old')

  def fail(descriptor):
    raise error

  monkeypatch.setattr(os, 'fsync', fail)
  with pytest.raises(type(error)) as raised:
    _files.replace_text(path, 'new')
  assert path.read_text() == 'old'
  assert [p.name for p in tmp_path.iterdir()] == ['summary.json']
  if isinstance(error, OSError):
    assert raised.value.filename == str(path)
