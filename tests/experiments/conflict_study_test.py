"""The verdicts on planted data, and what is refused."""

import dataclasses
import json
import math

import numpy as np
import pytest
import rich.console

from experiments import _conflict, _conflict_report, conflict_study, report
from experiments._conflict_report import Setting
from experiments._verdicts import FAILS, HOLDS, UNDECIDED

SHIFT = {'tasks': 0.0, 'samples': 0.0}


def setting(name, seeds=3, *, cosine=SHIFT, magnitude=SHIFT, sd=0.1, drift=0.0):
  """Runs of three epochs with planted means of each kind of pair."""
  runs = {}
  for seed in range(seeds):
    rng = np.random.default_rng([seed, len(name)])
    run = {}
    for kind in _conflict.KINDS:
      for measure in _conflict.MEASURES:
        planted = {'cosine': cosine, 'magnitude': magnitude}.get(measure, SHIFT)
        mean = planted.get(kind, 0) + (0.6 if measure == 'magnitude' else 0)
        slope = drift if (kind, measure) == ('tasks', 'magnitude') else 0
        run[f'{kind}/{measure}'] = {
          epoch: mean + slope * epoch + sd * rng.normal(size=400)
          for epoch in (1, 2, 3)
        }
    runs[seed] = run
  return Setting(name, runs)


def outcomes(*settings, min_seeds=3):
  found = _conflict_report.claims(list(settings), min_seeds)
  return {v.claim: v.outcome for v in found}


def test_claims_hold_and_fail_as_planted():
  lower = {'tasks': -0.1, 'samples': 0.0}
  planted = {'cosine': {'tasks': 0.1}, 'magnitude': lower}
  shared = setting('d.shared_heavy', **planted)
  heads = setting('d.head_heavy', sd=0.05, **planted)
  assert outcomes(shared, heads) == {'E7': HOLDS, 'E8': HOLDS, 'E9': HOLDS}
  # Two seeds decide nothing.
  assert set(outcomes(shared, heads, min_seeds=4).values()) == {UNDECIDED}

  shared = setting('d.shared_heavy', cosine=lower)
  heads = setting('d.head_heavy', cosine=lower, sd=0.2)
  found = outcomes(shared, heads)
  assert found['E7'] == FAILS
  assert found['E9'] == FAILS
  assert found['E8'] == UNDECIDED  # no gap is planted
  assert outcomes(setting('a'))['E7'] == UNDECIDED

  # The gap is there in one setting only, or moves.
  found = outcomes(
    setting('d.shared_heavy', magnitude=lower),
    setting('d.head_heavy', magnitude={'tasks': 0.1}),
  )
  assert found['E8'] == FAILS
  assert outcomes(setting('a', magnitude=lower, drift=0.1))['E8'] == FAILS


def test_nothing_measured_is_undecided():
  assert set(outcomes().values()) == {UNDECIDED}


def test_numbers_of_an_epoch():
  values = np.arange(1.0, 5.0)
  found = _conflict_report.stats(values)
  assert (found.mean, found.n) == (2.5, 4)
  assert found.sd == pytest.approx(math.sqrt(1.25))
  assert (found.low, found.high) == pytest.approx((1.075, 3.925))


def write_run(folder, seed, steps=4):
  rng = np.random.default_rng(seed)
  folder.mkdir(parents=True)
  with (folder / 'probe.jsonl').open('w') as file:
    for step in range(1, steps + 1):
      line = {'kind': 'probe', 'step': step, 'epoch': step / 2}
      for kind in _conflict.KINDS:
        for measure in _conflict.MEASURES:
          line[f'{kind}/{measure}'] = rng.uniform(0.1, 0.9, (2, 3)).tolist()
      line['tasks/cosine'][0][0] = 'NaN'
      file.write(json.dumps(line) + '\n')
  metrics = {'kind': 'train', 'step': 4, 'loss/left': 1.0}
  (folder / 'metrics.jsonl').write_text(json.dumps(metrics) + '\n')


def test_report_of_a_folder(tmp_path, capsys):
  names = ['digits.shared_heavy', 'digits.head_heavy']
  config = dataclasses.asdict(conflict_study.Config())
  config |= {
    'experiment': 'conflict_study',
    'tasks': ['left', 'right'],
    'methods': names,
  }
  (tmp_path / 'config.json').write_text(json.dumps(config, default=str))
  rows = ['method,seed,status']
  for name in names:
    for seed in range(3):
      write_run(tmp_path / 'runs' / name / f'seed_{seed}', seed)
      rows.append(f'{name},{seed},ok')
  (tmp_path / 'results.csv').write_text('\n'.join(rows) + '\n')
  report.main(tmp_path)
  shown = capsys.readouterr().out
  assert 'digits.head_heavy' in shown
  assert 'E8' in shown
  summary = json.loads((tmp_path / 'summary.json').read_text())
  line = summary['epochs'][0]
  assert line['epoch'] == 1
  assert line['pairs'] == 'tasks'
  assert line['n'] == 3 * 2 * 5  # seeds, steps, pairs without the NaN
  assert line['low'] < line['mean'] < line['high']
  assert len(summary['epochs']) == 2 * 4 * 4 * 2
  page = (tmp_path / 'report.html').read_text()
  assert page.count('role="img"') == 4 * 2 * 2


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'seeds': 0}, '--seeds'),
    ({'diagnose_every': 0}, '--diagnose-every'),
    ({'diagnose_samples': 1}, '--diagnose-samples'),
    ({'diagnose_samples': 65}, '--diagnose-samples'),
    ({'learning_rate': 0.0}, '--learning-rate'),
    ({'hidden_sizes': ()}, '--hidden-sizes'),
  ],
)
def test_wrong_options_are_named(options, message):
  config = dataclasses.replace(conflict_study.Config(), **options)
  with pytest.raises(ValueError, match=message):
    conflict_study.prepare(config, rich.console.Console())
