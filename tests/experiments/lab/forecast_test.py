"""What a comparison will take, without taking it."""

import sys

import pytest

from experiments import compare


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
  """A comparison that only says what it will take: its words, its folder."""
  out = tmp_path / 'out'
  words = (
    f'compare --suite digits --dry-run --out {out} --data.dir {tmp_path}/data '
    '--data.num-train 64 --data.num-validation 32 --data.num-test 32 '
    '--batch-size 32 --epochs 3 --hidden-sizes 4 --data.pool 6 --seeds 2 '
    '--model multi_mlp '
    '--methods cagrad --no-baselines --tune 4'
  )
  monkeypatch.setattr(sys, 'argv', words.split())
  compare.main()
  return capsys.readouterr().out, out


def test_the_grid_is_said_and_nothing_is_written(printed):
  said, out = printed
  (line,) = [x for x in said.splitlines() if x.strip().startswith('cagrad ')]
  method, runs, done, steps, milliseconds, minutes, megabytes = line.split()
  # 2 seeds of 3 epochs of 64 / 32 steps.
  assert (method, runs, done, steps) == ('cagrad', '2', '0', '6')
  assert float(milliseconds) > 0
  assert float(minutes) >= 0
  assert 0 < float(megabytes) < 100
  assert '2 runs to train' in said
  assert '4 trials of each method' in said
  assert not out.exists()
