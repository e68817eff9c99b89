"""The verdicts on planted data, and what is refused."""

import dataclasses
import json
import math

import census_rows
import numpy as np
import pytest
import rich.console

from experiments import suites
from experiments.report import __main__ as report_command
from experiments.report import conflict
from experiments.report.conflict import SettingPairs
from experiments.report.verdicts import FAILS, HOLDS, UNDECIDED
from experiments.studies.conflict import claims
from experiments.studies.conflict import study as program
from experiments.suites import DataOptions
from mtljax.data import _census_columns

SHIFT = {'tasks': 0.0, 'samples': 0.0}


def setting(name, seeds=3, *, cosine=SHIFT, magnitude=SHIFT, sd=0.1, drift=0.0):
  """Runs of three epochs with planted means of each kind of pair."""
  runs = {}
  for seed in range(seeds):
    rng = np.random.default_rng([seed, len(name)])
    run = {}
    for kind in conflict.KINDS:
      for measure in conflict.MEASURES:
        planted = {'cosine': cosine, 'magnitude': magnitude}.get(measure, SHIFT)
        mean = planted.get(kind, 0) + (0.6 if measure == 'magnitude' else 0)
        slope = drift if (kind, measure) == ('tasks', 'magnitude') else 0
        run[f'{kind}/{measure}'] = {
          epoch: mean + slope * epoch + sd * rng.normal(size=400)
          for epoch in (1, 2, 3)
        }
    runs[seed] = run
  return SettingPairs(name, runs)


def outcomes(*settings, min_seeds=3):
  found = claims.claims(list(settings), min_seeds)
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


def test_parts_are_judged_by_the_same_rules():
  lower = {'tasks': -0.1, 'samples': 0.0}
  settings = [
    setting('one.shared_heavy', cosine=lower),
    setting('one.head_heavy', sd=0.05, cosine=lower),
    setting('two.shared_heavy', cosine={'tasks': 0.1}),
  ]
  found = {x['part']: x for x in claims.outcomes(settings, min_seeds=3)}
  names = [x.name for x in settings]
  assert list(found) == ['one', 'two', *names]
  assert [found[x]['E7'] for x in ('one', *names)] == [*[FAILS] * 3, HOLDS]
  assert found['one']['E9'] == HOLDS
  assert [found[x]['E9'] for x in ('two', *names)] == [None] * 4


def test_pairs_of_one_sign():
  values = np.array([-0.5, -0.1, 0.0, 0.2])
  one = SettingPairs('a', {0: {'tasks/cosine': {1: values, 2: values[:2]}}})
  positive = one.per_epoch('tasks/cosine', 1)
  assert {e: (x.n, x.mean) for e, x in positive.items()} == {1: (1, 0.2)}
  negative = one.per_epoch('tasks/cosine', -1)
  assert [x.n for x in negative.values()] == [2, 2]
  assert negative[1].mean == pytest.approx(-0.3)


def test_numbers_of_an_epoch():
  values = np.arange(1.0, 5.0)
  found = conflict.stats(values)
  assert (found.mean, found.n) == (2.5, 4)
  assert found.sd == pytest.approx(math.sqrt(1.25))
  assert (found.low, found.high) == pytest.approx((1.075, 3.925))


def write_run(folder, seed, steps=4):
  rng = np.random.default_rng(seed)
  folder.mkdir(parents=True)
  with (folder / 'probe.jsonl').open('w') as file:
    for step in range(1, steps + 1):
      line = {'kind': 'probe', 'step': step, 'epoch': step / 2}
      for kind in conflict.KINDS:
        for measure in conflict.MEASURES:
          low = -0.9 if (kind, measure) == ('samples', 'cosine') else 0.1
          line[f'{kind}/{measure}'] = rng.uniform(low, 0.9, (2, 3)).tolist()
      line['tasks/cosine'][0][0] = 'NaN'
      file.write(json.dumps(line) + '\n')
  metrics = {'kind': 'train', 'step': 4, 'loss/left': 1.0}
  (folder / 'metrics.jsonl').write_text(json.dumps(metrics) + '\n')


def test_report_of_a_folder(tmp_path, capsys):
  names = ['digits.shared_heavy', 'digits.head_heavy']
  config = dataclasses.asdict(program.ConflictConfig())
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
  report_command.main(tmp_path)
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
  assert page.count('role="img"') == 5 * 2 * 2
  shares = {
    (x['pairs'], x['sign']): x['share']
    for x in summary['signs']
    if (x['setting'], x['epoch']) == (names[0], 1)
  }
  assert shares['tasks', 'positive'] == 1
  assert ('tasks', 'negative') not in shares
  both = [shares['samples', sign] for sign in ('positive', 'negative')]
  assert 0 < min(both) < 1
  assert sum(both) == 1
  assert [x['part'] for x in summary['outcomes']] == ['digits', *names]


def test_census_is_a_data_set(tmp_path):
  census_rows.write_raw(tmp_path, _census_columns.COLUMNS)
  config = program.ConflictConfig(
    suite=('census',),
    data=DataOptions(dir=tmp_path),
    hidden_sizes=(4,),
  )
  study = program.prepare(config, rich.console.Console(quiet=True))
  assert list(dict.fromkeys(cell.method for cell in study.runs)) == [
    'census.shared_heavy',
    'census.head_heavy',
  ]
  cell = study.runs[0]
  assert cell.tasks == ('income', 'never_married')
  assert cell.num_steps == config.epochs * (200 // config.batch_size)
  found = {'auc/income': 0.5, 'auc/never_married': 1, 'accuracy/income': 3}
  assert cell.select(found) == 0.75


def test_without_census_it_says_how_to_go_on(tmp_path, monkeypatch):
  def load(*args):
    raise FileNotFoundError('run the fetch command')

  suite = dataclasses.replace(suites.find('census'), load=load)
  monkeypatch.setattr('experiments.suites.census.SUITE', suite)
  config = program.ConflictConfig(
    suite=('census', 'digits'), out=tmp_path / 'out'
  )
  message = 'fetch command. To do without these data: --suite digits'
  with pytest.raises(FileNotFoundError, match=message):
    program.prepare(config, rich.console.Console())
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'seeds': 0}, '--seeds'),
    ({'diagnose_every': 0}, '--diagnose-every'),
    ({'diagnose_samples': 1}, '--diagnose-samples'),
    ({'diagnose_samples': 65}, '--diagnose-samples'),
    ({'learning_rate': 0.0}, '--learning-rate'),
    ({'hidden_sizes': ()}, '--hidden-sizes'),
    ({'suite': ()}, '--suite'),
    ({'suite': ('digits', 'digits')}, '--suite'),
    ({'suite': ('cenus',)}, "Did you mean 'census'"),
    ({'data': DataOptions(num_train=0)}, '--data.num-train'),
  ],
)
def test_wrong_options_are_named(options, message):
  config = dataclasses.replace(program.ConflictConfig(), **options)
  with pytest.raises(ValueError, match=message):
    program.prepare(config, rich.console.Console())
