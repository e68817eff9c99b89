"""The study end to end, its claims on planted numbers, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import rich.console
from written import rows

from experiments.lab import study as lab_study
from experiments.report import __main__ as report_command
from experiments.report import files
from experiments.report.statistics import corrected, interval
from experiments.report.verdicts import FAILS, HOLDS, UNDECIDED
from experiments.studies.disentanglement import claims, readings
from experiments.studies.disentanglement import study as program
from experiments.studies.disentanglement.claims import (
  FEATURE,
  NONE,
  PARAMETER,
  RankedMethod,
)
from experiments.suites import Data, digits

QUIET = rich.console.Console(quiet=True, width=124)
BACKBONE = 'multi_mlp-4'


def examples(seed, count):
  """Numbers whose two largest entries are the labels."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(count, 20)).astype(np.float32)
  left, right = x[:, :10].argmax(1), x[:, 10:].argmax(1)
  return {'image': x, 'left': left, 'right': right}


MADE_UP = Data(
  {
    split: examples(seed, 64)
    for seed, split in enumerate(('train', 'validation', 'test'))
  },
  lambda batch: batch['image'],
)


@pytest.fixture(scope='module')
def made_up_digits():
  with pytest.MonkeyPatch.context() as patch:
    suite = dataclasses.replace(digits.SUITE, load=lambda *_: MADE_UP)
    patch.setattr(digits, 'SUITE', suite)
    yield


@pytest.fixture(scope='module')
def small(tmp_path_factory, made_up_digits):
  """A few steps of small networks, and their folder."""
  del made_up_digits
  config = program.DisentanglementConfig(
    out=tmp_path_factory.mktemp('disentanglement') / 'out',
    backbones=(BACKBONE,),
    methods=('sum_losses', 'mgda'),
    epochs=2,
    batch_size=16,
    probe_every=2,
    seeds=2,
    log_every=4,
    progress=False,
  )
  assert lab_study.run(config, program.prepare(config, QUIET), QUIET) == 0
  return config


def test_every_method_is_trained_at_its_levels(small):
  names = [
    f'{BACKBONE}.{rest}'
    for rest in (
      'single_left.sum_losses',
      'single_right.sum_losses',
      'none.sum_losses',
      'parameter.mgda',
      'feature.mgda',
    )
  ]
  found = rows(small)
  assert [x['method'] for x in found] == [x for x in names for _ in range(2)]
  assert all(x['status'] == 'ok' for x in found)
  # Features have another Gramian than parameters.
  parameter, feature = (
    json.loads(
      (small.out / f'runs/{BACKBONE}.{level}.mgda/seed_0/metrics.jsonl')
      .read_text()
      .splitlines()[0]
    )
    for level in (PARAMETER, FEATURE)
  )
  assert parameter['weight/left'] != feature['weight/left']


def test_the_means_are_those_of_the_probe(small):
  path = small.out / 'runs/multi_mlp-4.none.sum_losses/seed_1/probe.jsonl'
  lines = [json.loads(x) for x in path.read_text().splitlines()]
  assert len(lines) == 4  # of eight steps
  means = readings.read_means(path)
  for name in readings.MEASURES:
    expected = np.mean([x[name] for x in lines])
    np.testing.assert_allclose(means[name], expected)
    assert -1 <= expected <= 1
  with path.open('a') as file:
    file.write('{"step": 9}\n')
  with pytest.raises(ValueError, match='line 5 is damaged'):
    readings.read_means(path)
  path.write_text(''.join(json.dumps(x) + '\n' for x in lines))


def test_the_page_has_delta_m_against_each_task_alone(small):
  report_command.main(small.out)
  summary = json.loads((small.out / 'summary.json').read_text())
  assert summary['notes'] == []
  table = {(x['method'], x['seed']): x for x in rows(small)}

  def score(method, task):
    return np.array(
      [float(table[method, s][f'test/accuracy/{task}']) for s in '01']
    )

  for entry in summary['entries']:
    name = f'{entry["backbone"]}.{entry["level"]}.{entry["method"]}'
    drops = []
    for task in ('left', 'right'):
      alone = f'{entry["backbone"]}.single_{task}.sum_losses'
      base = score(alone, task).mean()
      drops.append(100 * (base - score(name, task)) / base)
    expected = np.mean(drops)
    np.testing.assert_allclose(entry['delta_m']['mean'], expected)
  assert len(summary['entries']) == 3
  assert {x['outcome'] for x in summary['verdicts']} == {UNDECIDED}
  page = (small.out / 'report.html').read_text()
  assert 'Methods on multi_mlp-4' in page
  assert 'fd/task.jaccard' in page


def test_the_study_goes_on_where_it_was(small):
  before = rows(small)
  path = small.out / 'runs/multi_mlp-4.feature.mgda/seed_1' / files.RESULT
  path.unlink()
  lab_study.run(small, program.prepare(small, QUIET), QUIET)
  assert path.exists()
  column = 'test/loss/left'
  assert [x[column] for x in rows(small)] == [x[column] for x in before]


METHODS = (*claims.KEPT, 'pcgrad', 'cagrad')


def planted(gap=None, order=None, seeds=5):
  """Three backbones; all orders are clear but for the noise of a seed.

  Args:
    gap: by method, delta-m at features less that at parameters.
    order: by backbone, the order of the entries; None: the same on all.
    seeds: how many.
  """
  gap = gap or {}
  entries = [RankedMethod('sum_losses', NONE)]
  entries += [RankedMethod(m, x) for m in METHODS for x in (PARAMETER, FEATURE)]
  table = {}
  for place, backbone in enumerate(('small', 'middle', 'large')):
    table[backbone] = {}
    ranks = (order or {}).get(backbone, range(len(entries)))
    for entry, rank in zip(entries, ranks, strict=True):
      runs = {}
      for seed in range(seeds):
        rng = np.random.default_rng([seed, place, rank])
        base = 10.0 * METHODS.index(entry.method) if entry.level != NONE else -9
        if entry.level == FEATURE:
          base += gap.get(entry.method, 5.0)
        if order:
          base = rank
        score = base + 0.02 * rng.normal()
        runs[seed] = {
          'delta_m': score,
          claims.READING: -score,
          'cosine': rng.normal(),
          'magnitude': score,
        }
      table[backbone][entry] = runs
  return table


def outcomes(table, min_seeds=3):
  found = claims.claims(table, min_seeds, 'large')
  return {x.claim: x.outcome for x in found}


def test_claims_on_planted_numbers():
  kept = {'mgda': 0.5, 'aligned_mtl': -3.0}
  assert outcomes(planted(kept)) == {
    'RA1': HOLDS,
    'RA2': HOLDS,
    'RA3': UNDECIDED,
  }
  assert outcomes(planted(kept | {'pcgrad': -1.0}))['RA1'] == FAILS
  assert outcomes(planted(kept | {'mgda': 1.2}))['RA1'] == FAILS
  # Two seeds decide nothing.
  assert set(outcomes(planted(kept), min_seeds=6).values()) == {UNDECIDED}


def test_a_backbone_with_an_order_of_its_own():
  table = planted(order={'large': [*range(8, -1, -1)]})
  assert outcomes(table)['RA3'] == HOLDS
  same = claims.agreement(table, 'small', 'small')
  other = claims.agreement(table, 'small', 'large')
  assert set(same.values()) == {1.0}
  assert set(other.values()) == {-1.0}


def test_a_measure_that_ranks_as_badly_as_it_can():
  table = planted()
  for entries in table.values():
    for runs in entries.values():
      for row in runs.values():
        row[claims.READING], row['magnitude'] = (
          row['magnitude'],
          row[claims.READING],
        )
  assert set(claims.similarities(table, claims.READING).values()) == {-1.0}
  assert outcomes(table)['RA2'] == FAILS


def test_claims_need_their_methods():
  table = planted()
  for entries in table.values():
    del entries[RankedMethod('mgda', FEATURE)]
  assert claims.both_levels(table) == ['aligned_mtl', 'pcgrad', 'cagrad']
  assert outcomes(table)['RA1'] == UNDECIDED
  assert claims.claims({}, 3, 'large')[2].outcome == UNDECIDED


def test_intervals_are_corrected_for_their_number():
  table = planted({'mgda': 0.5})
  measured = claims.claims(table, 3, 'large')[0].measured[0].value
  values = list(claims.costs(table, 'mgda').values())
  # Four methods, two identifiers, one pair of rankings.
  assert measured == interval(values, corrected(7))
  assert measured.high - measured.low > np.diff(interval(values)[2:4])[0]
  assert corrected(1) == pytest.approx(0.95)
  assert corrected(5) == pytest.approx(0.99)


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'methods': ('modo',)}, '--methods=modo compares batches'),
    ({'methods': ('mgda', 'mgda')}, 'none twice'),
    ({'methods': ('mgdb',)}, "Did you mean 'mgda'"),
    ({'backbones': ('multi_lenet-3',)}, 'sizes are whole numbers'),
    ({'backbones': ('multi_mlp-x',)}, "--backbones='multi_mlp-x'"),
    ({'backbones': ('lenet',)}, 'multi_lenet'),
    ({'probe_every': 0}, '--probe-every=0'),
  ],
)
def test_what_cannot_be_run_is_refused(options, match):
  config = dataclasses.replace(program.DisentanglementConfig(), **options)
  with pytest.raises(ValueError, match=match):
    program.check(config)


@pytest.mark.parametrize('suite', ['digits', 'scenes'])
def test_presets_of_a_suite_can_be_run(suite):
  for config in program.presets_of(suite).values():
    program.check(config)
    assert config.suite == suite
    # Two of these are claims of their own; others are compared with them.
    assert {'mgda', 'aligned_mtl', 'cagrad'} <= set(config.methods)


def test_backbones_of_a_suite():
  config = program.DisentanglementConfig()
  found = program.backbones_of(config, program.suites.find('digits'))
  assert found == ['multi_mlp-16', 'multi_mlp-256-128', 'multi_lenet']
  scenes = program.suites.find('scenes')
  found = program.backbones_of(config, scenes)
  assert found == ['segnet', 'mtan', 'deeplab_v3']
  program.check(dataclasses.replace(config, suite='scenes'))
