"""The suite of NYUv2: protocol, splits, and a comparison end to end."""

import dataclasses
import json

import dense_files
import here
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import compare
from experiments.lab import comparison, dense
from experiments.lab.options import override
from experiments.lab.problem import make_problem, over_batches
from experiments.report.console import make_console
from experiments.suites import DataOptions, nyuv2
from experiments.suites.nyuv2 import SUITE
from mtljax import data, metrics, models

SMALL = {'widths': (4,), 'num_convs': (1,)}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('nyuv2')
  dense_files.write_nyuv2(folder, train=5, val=3)
  return folder


def read(data_dir, selects=True, **options):
  options = DataOptions(dir=data_dir, **options)
  return SUITE.read(options, 2, lambda _: None, selects=selects)


def test_a_fifth_is_held_out_and_the_test_images_are_apart(data_dir):
  found = read(data_dir)
  assert [found.num_examples(x) for x in ('train', 'validation', 'test')] == [
    4,
    1,
    3,
  ]
  whole = data.load_nyuv2(split='train', data_dir=data_dir)['depth']
  both = [found.splits[x]['depth'] for x in ('train', 'validation')]
  order = lambda x: sorted(array.tobytes() for array in x)
  assert order(np.concatenate(both)) == order(whole)
  other = read(data_dir, seed=1).splits['validation']['depth']
  third = read(data_dir, seed=2).splits['validation']['depth']
  assert len({x.tobytes() for x in (both[1], other, third)}) > 1


def test_nothing_is_selected_on_test(data_dir):
  found = read(data_dir, selects=False, source='published')
  assert found.num_examples('train') == 5
  np.testing.assert_array_equal(
    found.splits['validation']['depth'], found.splits['test']['depth']
  )
  with pytest.raises(ValueError, match="'published' has no validation"):
    read(data_dir, source='published')


def test_pooling_keeps_images_and_labels_together(data_dir):
  whole = data.load_nyuv2(split='test', data_dir=data_dir)
  found = read(data_dir, pool=4).splits['test']
  assert found['image'].shape == (3, 72, 96, 3)
  mean = whole['image'][0, :4, 4:8].reshape(-1, 3).mean(0)
  np.testing.assert_allclose(found['image'][0, 0, 1], mean, atol=0.5)
  for name in ('segmentation', 'depth', 'normals'):
    np.testing.assert_array_equal(
      found[name][:, 3, 5], whole[name][:, 4 * 3 + 2, 4 * 5 + 2]
    )


def test_losses_are_means_over_the_pixels_of_a_batch():
  """Those of MTAN's code, on two images with unlike numbers of valid pixels."""
  rng = np.random.default_rng(0)
  depth = rng.uniform(1, 9, (2, 4, 4)).astype(np.float32)
  depth[0, 1:] = 0
  outputs = rng.normal(size=(2, 4, 4, 1)).astype(np.float32)
  logits = rng.normal(size=(2, 4, 4, 13)).astype(np.float32)
  labels = rng.integers(-1, 13, (2, 4, 4))
  normals = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
  normals[1, 2:] = 0
  guess = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
  log_share = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  valid = np.nonzero(labels >= 0)
  unit = guess / np.linalg.norm(guess, axis=-1, keepdims=True)
  mask = normals.sum(-1) != 0
  expected = {
    'segmentation': -log_share[(*valid, labels[valid])].mean(),
    'depth': (np.abs(outputs[..., 0] - depth) * (depth != 0)).sum()
    / (depth != 0).sum(),
    'normals': 1 - ((unit * normals).sum(-1) * mask).sum() / mask.sum(),
  }
  batch = {'segmentation': labels, 'depth': depth, 'normals': normals}
  made = {'segmentation': logits, 'depth': outputs, 'normals': guess}
  for task in SUITE.tasks:
    loss, _ = task.loss(jnp.asarray(made[task.name]), batch)
    assert float(loss) == pytest.approx(expected[task.name], rel=1e-5)


def test_depth_and_normals_are_means_over_batches_and_miou_is_not():
  """Three images in batches of two, as of MTAN's loader."""
  rng = np.random.default_rng(0)
  depth = rng.uniform(1, 9, (3, 4, 4)).astype(np.float32)
  depth[0, :3] = 0
  labels = rng.integers(-1, 13, (3, 4, 4))
  arrays = {
    'depth': depth,
    'segmentation': labels,
    'made': rng.normal(size=(3, 4, 4, 1)).astype(np.float32),
    'logits': rng.normal(size=(3, 4, 4, 13)).astype(np.float32),
  }
  segmentation, depth_task, _ = SUITE.tasks

  def measure(batch):
    return depth_task.measure(batch['made'], batch) | segmentation.measure(
      batch['logits'], batch
    )

  found = over_batches(jax.jit(measure), arrays, 2)
  error = np.abs(arrays['made'][..., 0] - depth)
  means = [error[:2][depth[:2] != 0].mean(), error[2].mean()]
  assert float(found['abs_err/depth']) == pytest.approx(np.mean(means))
  whole = metrics.segmentation_metrics(arrays['logits'], labels)['miou']
  assert float(found['miou/segmentation']) == pytest.approx(
    float(whole.compute())
  )


def test_published_rows_have_their_published_delta_m():
  rows = nyuv2.PUBLISHED.rows
  higher = SUITE.facts()['higher_is_better']
  assert len(rows) == 28 and list(rows['STL']) == list(higher)
  for method, value in {
    'STL': 0,
    'LS': 5.59,
    'SI': 4.39,
    'MGDA': 1.38,
    'Nash-MTL': -4.04,
    'FAMO': -4.10,
    'FairGrad': -4.66,
    'DB-MTL': -5.36,
    'NTKMTL': -6.99,
    'F-CAGrad': -3.78,
  }.items():
    found = metrics.delta_m(
      list(rows[method].values()),
      list(rows['STL'].values()),
      list(higher.values()),
    )
    assert float(found) == pytest.approx(value, abs=0.02), method


def test_presets_are_the_protocol():
  found = comparison.configs(SUITE)
  for config in found.values():
    comparison.check(comparison.complete(config, SUITE), SUITE)
  paper = found['paper']
  assert (paper.epochs, paper.last_epochs, paper.batch_size) == (200, 10, 2)
  assert (paper.model, paper.baseline_model) == ('mtan_full', 'segnet_full')
  assert paper.augment and paper.learning_rate == 1e-4
  assert (paper.schedule, paper.decay_every, paper.decay_factor) == (
    'step',
    100,
    0.5,
  )


@pytest.mark.parametrize(
  ('name', 'count', 'shared'),
  [
    ('mtan_full', 44_229_073, 44_117_184),
    ('segnet_full', 25_055_185, 24_943_296),
    ('cross_stitch_full', 74_941_858, 74_829_969),
  ],
)
def test_networks_have_the_sizes_of_the_codes(data_dir, name, count, shared):
  found = read(data_dir)
  convention = 'all_but_predictions' if name == 'mtan_full' else ''
  problem = make_problem(SUITE, found, SUITE.network(name), shared=convention)
  assert problem.sharings.num_params == count
  assert problem.sharings.num_gramian == shared


def test_a_comparison_end_to_end_by_the_protocol(data_dir, tmp_path, capsys):
  out = tmp_path / 'out'
  small = dense.network(models.segnet, definition='mtan', **SMALL)
  suite = dataclasses.replace(SUITE, networks={'segnet': small})
  command = f'--data.dir {data_dir} --out {out} --data.pool 12 '
  command += '--methods sum_losses --seeds 1 --batch-size 2 --no-progress '
  command += '--no-tensorboard --log-every 1 --data.num-validation 1 '
  command += '--tasks segmentation depth --augment --schedule step --epochs 3 '
  command += '--last-epochs 2 --data.source published'
  found = here.compare(capsys, suite, 'nyuv2', *command.split())
  assert found.returncode == 0, found.stderr[-2000:]
  summary = json.loads((out / 'summary.json').read_text())
  assert not summary['failures']
  own = summary['methods']['sum_losses']
  assert own['delta_m_metrics'] is not None
  lines = [
    json.loads(line)
    for line in (out / 'runs/sum_losses/seed_0/metrics.jsonl')
    .read_text()
    .splitlines()
  ]
  tests = [x for x in lines if x.get('split') == 'test']
  assert [x['step'] for x in tests] == [4, 6]
  for name in ('miou/segmentation', 'abs_err/depth'):
    assert own['metrics'][name]['mean'] == pytest.approx(
      np.mean([x[name] for x in tests])
    )
  rows = {(r['kind'], r['name']) for r in summary['beside']['rows']}
  assert ('published', 'FairGrad') in rows
  page = (out / 'report.html').read_text()
  for text in ('FairGrad (published)', 'mean over the last 2 epochs'):
    assert text in page


def test_missing_data_is_one_sentence(tmp_path, capfd):
  args = ('--suite', 'nyuv2', '--data.dir', tmp_path, '--out', tmp_path / 'out')
  found = here.call(capfd, compare.main, *args)
  assert found.returncode == 1
  assert found.stderr.startswith('error: ')
  assert 'https://github.com/lorenmt/mtan' in found.stderr
  assert 'Traceback' not in found.stderr


def prepared(data_dir, out, **changes):
  config = override(
    comparison.ComparisonConfig(out=out, methods=('sum_losses',), seeds=1),
    {
      'batch_size': 2,
      'data': DataOptions(dir=data_dir, pool=12),
      'tasks': ('segmentation', 'depth'),
      **changes,
    },
  )
  config = comparison.complete(config, SUITE)
  return comparison.prepare(config, SUITE, 'compare_nyuv2', make_console())


def test_tasks_alone_may_have_another_network(data_dir, tmp_path):
  study = prepared(data_dir, tmp_path, model='mtan', baseline_model='segnet')
  heads = {
    spec.method: set(jax.eval_shape(spec.init_fn).params['heads_0'])
    for spec in study.runs
  }
  assert heads.keys() == {'single_segmentation', 'single_depth', 'sum_losses'}
  alone = heads['single_segmentation']
  assert alone == heads['single_depth'] and 'encoder_attention0' not in alone
  assert 'encoder_attention0' in heads['sum_losses']


def test_options_that_do_not_fit_are_named(data_dir, tmp_path):
  for changes, text in (
    ({'last_epochs': 2}, r'--last-epochs=2 must be'),
    ({'schedule': 'linear'}, "--schedule='linear' is not one of"),
    ({'decay_factor': 0.0}, r'--decay-factor=0.0 must be'),
    ({'baseline_model': 'unet'}, "--baseline-model='unet' is not one of"),
    ({'data.source': 'published'}, "'published' has no validation"),
    ({'data.num_validation': 5}, 'leaves none of the 5 training'),
  ):
    with pytest.raises(ValueError, match=text):
      prepared(data_dir, tmp_path, **changes)


@pytest.mark.slow
def test_the_preset_paper_has_its_runs(data_dir, tmp_path):
  """As far as can be seen without training networks of that size."""
  config = comparison.configs(
    SUITE, out=tmp_path, methods=('sum_losses', 'cagrad'), seeds=1
  )['paper']
  config = override(config, {'data.dir': data_dir})
  config = comparison.complete(config, SUITE)
  study = comparison.prepare(config, SUITE, 'compare_nyuv2', make_console())
  assert study.facts['num_gramian'] == 44_117_184
  assert study.options['num_steps'] == 200 * (5 // 2)
  together = {spec.method: spec for spec in study.runs}['cagrad']
  assert together.last_epochs == 10
  batch = next(together.batches_fn())
  assert batch['image'].shape == (2, 288, 384, 3)
  state = jax.eval_shape(together.init_fn)
  _, found = jax.eval_shape(together.step.step, state, batch)
  assert found['losses'].shape == (3,)
