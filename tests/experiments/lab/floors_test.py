"""Floors are taken once for a study, and anew for other data or tasks."""

import dataclasses

import numpy as np
import pytest

from experiments.lab import comparison, floors
from experiments.lab.suite import Data
from experiments.suites import find

CENSUS = find('census')
TASKS = ('income', 'married')


@pytest.fixture
def counted():
  """A suite whose floors are counted, on a few rows made up."""
  calls = []

  def load(options, tasks, say):
    del say
    rng = np.random.default_rng(options.seed)
    rows = lambda n: {
      'x': rng.normal(size=(n, 4)).astype(np.float32),
      **{task: rng.integers(0, 2, n) for task in tasks},
    }
    splits = {x: rows(40) for x in ('train', 'validation', 'test')}
    return Data(splits, lambda batch: batch['x'])

  def take(found):
    calls.append(found)
    return {'guess': {'auc/income': 0.5}}

  tasks = tuple(
    dataclasses.replace(CENSUS.tasks[0], name=name) for name in TASKS
  )
  suite = dataclasses.replace(
    CENSUS, tasks=tasks, load=load, floors=take, published=None
  )
  return suite, calls


def run(suite, out, *more):
  argv = ['--methods', 'mean', '--seeds', '1', '--no-progress', '--out']
  argv += [str(out), '--no-baselines', '--no-tensorboard', '--epochs', '1']
  argv += ['--model', 'multi_mlp', '--batch-size', '20', *more]
  comparison.main(suite, 'counted', argv=argv)


def test_they_are_taken_once(counted, tmp_path):
  suite, calls = counted
  run(suite, tmp_path / 'a', '--tasks', *TASKS)
  assert len(calls) == 1
  run(suite, tmp_path / 'a', '--tasks', *TASKS)
  assert len(calls) == 1
  run(suite, tmp_path / 'b', '--tasks', *TASKS, '--data.seed', '1')
  assert len(calls) == 2


def test_only_of_the_same_data_code_and_tasks(counted, tmp_path, monkeypatch):
  suite, _ = counted
  run(suite, tmp_path, '--tasks', *TASKS)
  found = suite.read(comparison.ComparisonConfig().data, 1, lambda _: None)
  suite = suite.with_tasks(TASKS)
  digests = suite.digests(found)
  expected = {'guess': {'auc/income': 0.5}}
  assert floors.kept(tmp_path, suite, digests) == expected
  assert floors.kept(tmp_path, suite, {**digests, 'test': '0'}) is None
  assert floors.kept(tmp_path, suite.with_tasks(TASKS[:1]), digests) is None
  assert floors.kept(tmp_path / 'nowhere', suite, digests) is None
  with monkeypatch.context() as patch:
    patch.setattr('experiments.lab.identity.code', lambda: {'mtljax': 'other'})
    assert floors.kept(tmp_path, suite, digests) is None
  config = tmp_path / 'config.json'
  config.write_text(config.read_text().replace('0.5', '0.6'))
  assert floors.kept(tmp_path, suite, digests) is None
