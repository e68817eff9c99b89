"""The suite of Cityscapes: protocol, forms, and a comparison end to end."""

import dataclasses
import json

import dense_files
import here
import numpy as np
import pytest

from experiments.lab import comparison, dense
from experiments.suites import DataOptions, cityscapes
from experiments.suites.cityscapes import SUITE
from mtljax import metrics, models

SMALL = {'widths': (4,), 'num_convs': (1,)}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('cityscapes')
  dense_files.write_cityscapes(folder, train=10, val=3)
  return folder


def test_measures_are_the_four_of_the_papers():
  assert SUITE.facts()['higher_is_better'] == {
    'miou/segmentation': True,
    'pixel_accuracy/segmentation': True,
    'abs_err/depth': False,
    'rel_err/depth': False,
  }


def test_published_rows_have_their_published_delta_m():
  rows = cityscapes.PUBLISHED.rows
  higher = SUITE.facts()['higher_is_better']
  assert len(rows) == 25 and list(rows['STL']) == list(higher)
  for method, value in {
    'STL': 0,
    'LS': 22.60,
    'UW': 5.89,
    'MGDA': 44.14,
    'Nash-MTL': 6.82,
    'FAMO': 8.13,
    'FairGrad': 5.18,
    'NTKMTL': 1.92,
    'SAMO-FairGrad': -0.62,
  }.items():
    found = metrics.delta_m(
      list(rows[method].values()),
      list(rows['STL'].values()),
      list(higher.values()),
    )
    # Absolute errors are printed with three digits.
    assert float(found) == pytest.approx(value, abs=0.11), method
    assert -cityscapes.select(rows[method]) == pytest.approx(float(found))


def test_presets_are_the_protocol():
  found = comparison.configs(SUITE)
  for config in found.values():
    comparison.check(comparison.complete(config, SUITE), SUITE)
  paper = found['paper']
  assert (paper.epochs, paper.last_epochs, paper.batch_size) == (200, 10, 8)
  assert (paper.model, paper.baseline_model) == ('mtan_full', 'segnet_full')
  assert paper.augment and paper.schedule == 'step'


def test_a_fifth_is_held_out_of_either_form(data_dir, tmp_path):
  read = lambda folder, source: SUITE.read(
    DataOptions(dir=folder, source=source, pool=4), 1, lambda _: None
  )
  found = read(data_dir, 'held_out')
  sizes = [found.num_examples(x) for x in ('train', 'validation', 'test')]
  assert sizes == [8, 2, 3]
  (tmp_path / 'png').mkdir()
  dense_files.prepare_cityscapes(
    tmp_path, tmp_path / 'png', {'train': 2, 'validation': 1}
  )
  found = read(tmp_path, 'tfds_held_out')
  sizes = [found.num_examples(x) for x in ('train', 'validation', 'test')]
  assert sizes == [1, 1, 1]
  assert found.splits['test']['image'].shape == (1, 32, 64, 3)
  expected = dense_files.street(2)['segmentation_label'][::8, ::8]
  np.testing.assert_array_equal(
    found.splits['test']['segmentation'][0] >= 0, expected[2::4, 2::4] > 6
  )
  with pytest.raises(ValueError, match="'tfds_published' has no validation"):
    read(tmp_path, 'tfds_published')


def test_a_comparison_end_to_end(data_dir, tmp_path, capsys):
  out = tmp_path / 'out'
  small = dense.network(models.segnet, definition='mtan', **SMALL)
  suite = dataclasses.replace(SUITE, networks={'segnet': small})
  command = f'--data.dir {data_dir} --out {out} --methods sum_losses --seeds 1 '
  command += '--batch-size 4 --no-progress --no-tensorboard --epochs 1 '
  command += '--data.pool 4 --data.num-validation 2 --no-baselines'
  found = here.compare(capsys, suite, 'cityscapes', *command.split())
  assert found.returncode == 0, found.stderr[-2000:]
  summary = json.loads((out / 'summary.json').read_text())
  assert not summary['failures']
  rows = {(r['kind'], r['name']): r for r in summary['beside']['rows']}
  assert rows['method', 'sum_losses']['delta_m'] is not None
  page = (out / 'report.html').read_text()
  for text in ('FairGrad (published)', 'rel_err depth'):
    assert text in page
  # Two examples of two tasks: image, truth, and what is predicted.
  assert page.count('<div class="strip">') == 4
  assert page.count('src="data:image/png;base64,') == 12
