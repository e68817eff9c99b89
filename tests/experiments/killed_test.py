"""Killed before any file operation, a study ends in the same numbers."""

import kills
import pytest

from mtljax import data
from mtljax.data import _census_columns as raw

TINY = '--batch-size 16 --epochs 2 --seeds 1 --log-every 4 --no-progress'
TINY += ' --no-tensorboard'
DIGITS = '--data.num-train 96 --data.num-validation 32 --data.num-test 32'


@pytest.fixture(scope='module')
def digits_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('digits')


@pytest.fixture(scope='module')
def census_dir(tmp_path_factory):
  import census_rows

  folder = tmp_path_factory.mktemp('census')
  census_rows.write_raw(folder, raw.COLUMNS)
  data.prepare_census(data_dir=folder)
  return folder


def digits(folder):
  return [
    'experiments.multi_digits',
    *f'--data.dir {folder} {DIGITS} {TINY} --model multi_mlp'.split(),
    *'--no-baselines --methods fairgrad --diagnose conflict'.split(),
  ]


def census(folder):
  return [
    'experiments.census',
    *f'--data.dir {folder} --hidden-sizes 8 --head-sizes 4 {TINY}'.split(),
    *'--no-baselines --methods cagrad'.split(),
  ]


def toy(*optimizers):
  options = '--iterations 300 --learning-rates 10 1 --methods mean --optimizers'
  return ['experiments.toy', *options.split(), *optimizers]


def test_the_toy_problem_killed_twice(tmp_path):
  found = kills.attack(tmp_path, toy('adatask'), kills=2, seed=1)
  assert found.kills.total() == 2 and found.ends >= 1


@pytest.mark.slow
def test_digits_killed_twenty_times(tmp_path, digits_dir):
  print(kills.attack(tmp_path, digits(digits_dir), kills=20, seed=0))


@pytest.mark.slow
def test_census_killed_twenty_times(tmp_path, census_dir):
  print(kills.attack(tmp_path, census(census_dir), kills=20, seed=0))


@pytest.mark.slow
def test_the_toy_problem_killed_twenty_times(tmp_path):
  print(kills.attack(tmp_path, toy('gd', 'adam', 'adatask'), kills=20, seed=0))
