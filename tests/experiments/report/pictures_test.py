"""Pictures that runs have kept, on the page of a made-up experiment."""

import base64
import io
import re

import numpy as np
import pytest
from made_up import ACCURACY, write
from PIL import Image

from experiments.report import comparison, files


def image(value):
  return np.full((2, 4, 6, 3), value, np.uint8)


KEPT = {
  'single_left': {'given/image': image(1), 'given/left': image(2)}
  | {'made/left': image(3)},
  'sum_losses': {'given/image': image(1), 'given/left': image(2)}
  | {'made/left': image(4), 'points/<mass>': np.array([[0, 1], [2, 3.0]])},
}


@pytest.fixture
def directory(tmp_path):
  write(tmp_path, ACCURACY, steps=20)
  for method, arrays in KEPT.items():
    path = tmp_path / 'runs' / method / 'seed_0' / files.ARTIFACTS
    arrays = {f'pictures/{name}': x for name, x in arrays.items()}
    files.write_arrays(path, arrays | {'other': [1]}, name=f'{method}/0')
  return tmp_path


def shown(page):
  """Captions and the first pixel of each picture, strip by strip."""
  for one in page.split('<div class="strip">')[1:]:
    one = one.partition('</div>')[0]
    found = re.findall(
      r'base64,([^"]+)" alt="([^"]*)"><figcaption>([^<]*)<', one
    )
    yield [
      (
        caption,
        int(np.asarray(Image.open(io.BytesIO(base64.b64decode(x))))[0, 0, 0]),
      )
      for x, _, caption in found
    ]


def test_a_strip_an_example_has_truth_and_all_methods(directory):
  comparison.write_report(directory)
  page = (directory / 'report.html').read_text()
  expected = [('', 1), ('truth', 2), ('single_left', 3), ('sum_losses', 4)]
  assert list(shown(page)) == [expected, expected]
  assert 'Predictions beside the truth' in page
  assert 'Predicted over true values' in page
  assert '&lt;mass&gt;' in page and '<mass>' not in page


def test_a_damaged_file_is_a_note(directory):
  path = directory / 'runs' / 'single_left' / 'seed_0' / files.ARTIFACTS
  path.write_bytes(path.read_bytes()[:100])
  summary = comparison.write_report(directory)
  assert any('its pictures were left out' in note for note in summary['notes'])
  page = (directory / 'report.html').read_text()
  expected = [('', 1), ('truth', 2), ('sum_losses', 4)]
  assert list(shown(page)) == [expected, expected]


def test_without_pictures_there_is_no_section(tmp_path):
  comparison.write_report(write(tmp_path, ACCURACY, steps=20))
  assert 'beside the truth' not in (tmp_path / 'report.html').read_text()
