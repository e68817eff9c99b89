"""Conflict of methods side by side, in the pages of all experiments."""

import dataclasses
import json

import numpy as np
import pytest
import rich.console

from experiments.lab.comparison import ComparisonConfig
from experiments.report import comparison, conflict
from experiments.report.conflict import SettingPairs
from experiments.studies.flat_regions import study as flat_regions
from experiments.studies.flat_regions.config import complete, presets_of
from experiments.studies.robustness import study as robustness

TITLE = 'Conflict between tasks and between samples'


def pairs_of(seed, kinds=conflict.KINDS, epochs=(1, 2)):
  rng = np.random.default_rng(seed)
  return {
    f'{kind}/{measure}': {
      epoch: rng.uniform(-1, 1, 6)
      for epoch in (epochs if kind in kinds else ())
    }
    for kind in conflict.KINDS
    for measure in conflict.MEASURES
  }


def test_methods_share_a_picture():
  settings = [
    SettingPairs('single_left', {0: pairs_of(0, ('samples',))}),
    SettingPairs('cagrad', {0: pairs_of(1), 1: pairs_of(2, epochs=(1,))}),
  ]
  (section,) = conflict.comparison(settings)
  assert section.title == TITLE
  assert [name for name, _ in section.legend] == ['single_left', 'cagrad']
  # Four measures of two kinds of pairs; a single task has no pairs of tasks.
  assert len(section.panels) == 8
  first = section.legend[0][1].color
  assert [first in panel for panel in section.panels] == [False, True] * 4


def test_nothing_measured_is_no_section():
  assert conflict.comparison([]) == []
  bare = SettingPairs('single_left', {0: pairs_of(0, ())})
  assert conflict.comparison([bare]) == []


def write_run(folder, measured):
  folder.mkdir(parents=True)
  line = {'kind': 'train', 'step': 4, 'loss/left': 1.0}
  (folder / 'metrics.jsonl').write_text(json.dumps(line) + '\n')
  if measured:
    line = {'kind': 'probe', 'step': 4, 'epoch': 0.5}
    for kind in conflict.KINDS:
      for measure in conflict.MEASURES:
        line[f'{kind}/{measure}'] = [[0.25, -0.5]]
    (folder / 'probe.jsonl').write_text(json.dumps(line) + '\n')


@pytest.mark.parametrize('measured', [True, False])
def test_page_shows_what_was_measured(tmp_path, measured):
  config = dataclasses.asdict(ComparisonConfig())
  config |= {'experiment': 'multi_digits', 'tasks': ['left', 'right']}
  config |= {'methods': ['cagrad'], 'out': '', 'data': {'source': 'mnist_5k'}}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  (tmp_path / 'results.csv').write_text(
    'method,seed,test/accuracy/left,test/accuracy/right,status\n'
    'cagrad,0,0.5,0.75,ok\n'
  )
  write_run(tmp_path / 'runs' / 'cagrad' / 'seed_0', measured)
  comparison.write_report(tmp_path)
  assert (TITLE in (tmp_path / 'report.html').read_text()) == measured


def test_flat_regions_measures_conflict():
  config = dataclasses.replace(
    presets_of('digits')['quick'],
    diagnose=('conflict',),
    diagnose_every=7,
    methods=('mean',),
    forms=('plain',),
    low_resource=(),
    noisy=(),
    sweep_methods=(),
    seeds=1,
    hidden_sizes=(4,),
    batch_size=16,
  )
  small = dataclasses.replace(
    config.data, num_train=32, num_validation=16, num_test=16
  )
  config = complete(dataclasses.replace(config, data=small))
  study = flat_regions.prepare(config, rich.console.Console(quiet=True))
  assert {run.probe_every for run in study.runs} == {7}
  run = study.runs[-1]
  found = run.probe_fn(run.init_fn(), next(run.batches_fn()))
  assert found['tasks/cosine'].shape == (8, 1)
  with pytest.raises(ValueError, match='batch statistics'):
    flat_regions.prepare(
      dataclasses.replace(config, model='resnet'), rich.console.Console()
    )


def test_robustness_study_measures_conflict():
  config = robustness.RobustnessConfig(
    diagnose=('conflict',),
    models=('multi_mlp',),
    methods=('sum_losses',),
    seeds=1,
    batch_size=16,
  )
  small = dataclasses.replace(
    config.data, num_train=32, num_validation=16, num_test=16
  )
  config = dataclasses.replace(config, data=small)
  study = robustness.prepare(config, rich.console.Console(quiet=True))
  # Each task alone too: its samples can be compared, its one task cannot.
  assert len(study.runs) == 3
  assert all(run.probe_fn is not None for run in study.runs)
  with pytest.raises(ValueError, match='batch statistics'):
    robustness.prepare(
      dataclasses.replace(config, models=('resnet',)), rich.console.Console()
    )
