"""Pupils by school from made-up rows in the raw format."""

import numpy as np
import pupil_rows
import pytest

from mtljax import data


def test_columns_are_those_of_the_file(tmp_path):
  pupil_rows.write(
    tmp_path,
    [
      '"2",473,447,"small.class",7,"girl","no","white",63'.split(','),
      '"5",463,439,"regular.with.aide",0,"boy","yes","black",19'.split(','),
      '"9",500,400,"regular",21,"boy","no","other",63'.split(','),
    ],
  )
  found = data.load_star(data_dir=tmp_path)
  np.testing.assert_array_equal(
    found['x'],
    [[7, 1, 0, 1, 0, 0, 0], [0, 0, 1, 0, 1, 1, 0], [21, 0, 0, 0, 0, 0, 1]],
  )
  assert found['maths'].tolist() == [473, 463, 500]
  assert found['reading'].tolist() == [447, 439, 400]
  assert found['school'].tolist() == [63, 19, 63]


def test_what_is_not_the_raw_file_is_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match='fetch star --data-dir'):
    data.load_star(data_dir=tmp_path)
  rows = pupil_rows.make_rows([3])
  pupil_rows.write(tmp_path, [rows[0][:-1]])
  with pytest.raises(ValueError, match='not the 9 columns.*fetch star --force'):
    data.load_star(data_dir=tmp_path)
  rows[1][1] = 'NA'
  pupil_rows.write(tmp_path, rows)
  with pytest.raises(ValueError, match='a number is none'):
    data.load_star(data_dir=tmp_path)
