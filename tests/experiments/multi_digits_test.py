"""The experiment from the command line: whole, interrupted, and misused."""

import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import here
import pytest

import mtljax as mtl
from experiments.lab import comparison
from experiments.suites import DataOptions
from experiments.suites.digits import SUITE

SMALL = (
  '--data.num-train 256 --data.num-validation 64 --data.num-test 64 '
  '--batch-size 32 --epochs 2 --log-every 4 --no-progress --no-tensorboard '
  '--model multi_mlp --hidden-sizes 16'
).split()


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('data')


def start(out, data_dir, *args, small=True):
  command = [sys.executable, '-m', 'experiments.multi_digits', '--out', out]
  command += ['--data.dir', data_dir, *(SMALL if small else []), *args]
  return subprocess.Popen(
    [str(part) for part in command],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=pathlib.Path(__file__).parents[2],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def call(*args, **kwargs):
  process = start(*args, **kwargs)
  out, err = process.communicate(timeout=300)
  return process.returncode, out, err


@pytest.fixture
def run_here(capsys, data_dir):
  """`call`, in this process, which has all modules already."""

  def run(out, *args):
    args = ('--out', out, '--data.dir', data_dir, *SMALL, *args)
    return here.compare(capsys, SUITE, 'multi_digits', *args)

  return run


def lines(folder):
  """Metric lines without what no two runs share."""
  found = []
  for path in sorted(folder.glob('runs/*/*/metrics.jsonl')):
    for line in path.read_text().splitlines():
      record = json.loads(line)
      record.pop('examples_per_second', None)
      found.append((path.parent.name, record))
  return found


def results(folder):
  with (folder / 'results.csv').open() as file:
    rows = list(csv.DictReader(file))
  for row in rows:
    for name in ('wall_time', 'steps_per_second', 'resumed_from'):
      row.pop(name, None)
  return rows


@pytest.fixture(scope='module')
def finished(tmp_path_factory, data_dir):
  """An undisturbed run, and what it printed."""
  out = tmp_path_factory.mktemp('undisturbed') / 'out'
  code, text, err = call(out, data_dir, '--methods', 'cagrad', '--seeds', '2')
  assert code == 0, err[-2000:]
  return out, text


def test_everything_is_written(finished):
  out, text = finished
  rows = results(out)
  assert [(r['method'], r['seed'], r['status']) for r in rows] == [
    (method, seed, 'ok')
    for method in ('single_left', 'single_right', 'cagrad')
    for seed in ('0', '1')
  ]
  assert 0 < float(rows[-1]['test/accuracy/left']) <= 1
  summary = json.loads((out / 'summary.json').read_text())
  assert summary['methods']['cagrad']['delta_m_tasks'] is not None
  page = (out / 'report.html').read_text()
  assert '<svg' in page
  assert 'http://' not in page.replace('http://www.w3.org', '')
  for word in ('cagrad', 'single_left', 'Δm', 'accuracy left'):
    assert word in text
  config = json.loads((out / 'config.json').read_text())
  assert config['experiment'] == 'multi_digits'
  names = set().union(*(record for _, record in lines(out)))
  assert {'loss/left', 'weight/right', 'cosine/left,right'} <= names


def test_finished_runs_are_not_run_again(finished, run_here, tmp_path):
  out = tmp_path / 'copy'
  shutil.copytree(finished[0], out)
  before = {p: p.stat().st_mtime_ns for p in out.glob('runs/**/metrics.jsonl')}
  args = ('--methods', 'cagrad', 'mean', '--seeds', '2')
  code, text, err = run_here(out, *args)
  assert code == 0, err[-2000:]
  assert '] cagrad' not in text
  assert text.count('] mean, seed') == 2
  assert before == {p: p.stat().st_mtime_ns for p in before}
  assert len(results(out)) == 8


def test_kill_and_resume_ends_in_the_same_bits(finished, data_dir, tmp_path):
  out = tmp_path / 'killed'
  args = ('--methods', 'cagrad', '--seeds', '2')
  process = start(out, data_dir, *args)
  # In the second method's first run, after its first checkpoint.
  sign = out / 'runs' / 'single_right' / 'seed_0' / 'checkpoints'
  deadline = time.time() + 120
  while not list(sign.glob('*.json')) and time.time() < deadline:
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert not (out / 'report.html').exists()
  code, _, err = call(out, data_dir, *args)
  assert code == 0, err[-2000:]
  assert results(out) == results(finished[0])
  assert lines(out) == lines(finished[0])
  for whole in sorted(finished[0].glob('runs/*/*/checkpoints/*.json')):
    again = out / whole.relative_to(finished[0])
    assert (
      json.loads(again.read_text())['meta']
      == (json.loads(whole.read_text())['meta'])
    )


def test_seeds_of_a_method_in_one_program(run_here, tmp_path):
  """With another way of running them, the same folder goes on."""
  out = tmp_path / 'out'
  args = ('--methods', 'mean', '--no-baselines')
  code, text, err = run_here(out, *args, '--seeds', '2', '--sweep', 'vmap')
  assert code == 0, err[-2000:]
  assert '[2/2] mean, seed 1' in text
  before = results(out)
  assert [row['status'] for row in before] == ['ok'] * 2
  code, text, err = run_here(out, *args, '--seeds', '2')
  assert code == 0, err[-2000:]
  assert 'mean, seed' not in text
  assert results(out) == before


def test_other_configuration_is_refused(finished, run_here):
  out = finished[0]
  before = (out / 'results.csv').read_bytes()
  code, _, err = run_here(out, '--learning-rate', '0.5')
  assert code == 1
  assert 'learning_rate (there 0.002, now 0.5)' in err
  assert 'Traceback' not in err
  assert (out / 'results.csv').read_bytes() == before


def test_no_resume_moves_the_old_run_aside(finished, run_here, tmp_path):
  out = tmp_path / 'copy'
  shutil.copytree(finished[0], out)
  code, _, err = run_here(
    out,
    '--no-resume',
    '--methods',
    'mean',
    '--seeds',
    '1',
    '--no-baselines',
    '--learning-rate',
    '0.01',
  )
  assert code == 0, err[-2000:]
  assert (tmp_path / 'copy.bak-1' / 'report.html').exists()
  assert len(results(out)) == 1


def test_diverging_run_is_said_and_the_others_go_on(run_here, tmp_path):
  out = tmp_path / 'out'
  code, text, err = run_here(
    out,
    '--methods',
    'mean',
    'mgda',
    '--seeds',
    '1',
    '--no-baselines',
    '--optimizer',
    'sgd',
    '--learning-rate',
    '1e20',
  )
  assert code == 1
  assert '2 runs did not finish' in err
  assert "the loss of task 'left' is nan at step" in text.replace('\n', ' ')
  assert (out / 'report.html').exists()
  assert [row['method'] for row in results(out)] == ['mean', 'mgda']


@pytest.mark.parametrize(
  'args, message',
  [
    (['--methods', 'cagrd'], "Did you mean 'cagrad'?"),
    (['--optimizer', 'adm'], "Did you mean 'adam'?"),
    (['--sweep', 'lop'], "Did you mean 'loop'?"),
    (['--data.source', 'mnits'], "Did you mean 'mnist'?"),
    (['--route', 'gramain', '--methods', 'mgda'], "Did you mean 'gramian'?"),
    (['--seeds', '0'], '--seeds=0 must be at least 1'),
    (['--batch-size', '1000'], '--batch-size=1000 is more than the 256'),
    (['--route', 'losses', '--methods', 'mgda'], 'mgda reads the Gramian'),
    (['--data.source', 'mnist'], 'tfds build mnist'),
  ],
)
def test_bad_options_get_one_sentence(args, message, data_dir, tmp_path):
  argv = ['--out', tmp_path / 'out', '--data.dir', data_dir, *SMALL, *args]
  with pytest.raises(SystemExit) as ended:
    comparison.main(SUITE, 'multi_digits', argv=list(map(str, argv)))
  assert message in str(ended.value)
  assert not (tmp_path / 'out').exists()  # the corrected command finds it free


@pytest.mark.parametrize(
  'options, message',
  [
    ({'num_train': 0}, '--data.num-train=0 must be at least 1'),
    ({'num_validation': -1}, '--data.num-validation=-1 must be at least 1'),
    ({'num_test': 0}, '--data.num-test=0 must be at least 1'),
    ({'seed': -1}, '--data.seed=-1 must be at least 0'),
  ],
)
def test_wrong_sizes_of_the_data_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    SUITE.check_data(DataOptions(**options))


def test_results_without_their_configuration_are_not_taken_over(
  finished, run_here, tmp_path
):
  out = tmp_path / 'copy'
  shutil.copytree(finished[0], out)
  (out / 'config.json').unlink()
  code, _, err = run_here(out, '--learning-rate', '0.9')
  assert code == 1
  assert 'no config.json' in err


def test_out_that_cannot_be_written(data_dir, capfd):
  args = ('--out', '/proc/out', '--data.dir', data_dir, *SMALL)
  code, _, err = here.compare(capfd, SUITE, 'multi_digits', *args)
  assert code == 1
  assert '--out /proc/out cannot be written to' in err
  assert 'Traceback' not in err


@pytest.mark.slow
def test_every_method_runs(tmp_path, data_dir):
  process = start(
    tmp_path / 'out',
    data_dir,
    *'--methods all --no-baselines --seeds 1 --epochs 1'.split(),
    *('--val-share', '0.2'),
  )
  out, err = process.communicate(timeout=1800)
  assert process.returncode == 0, err
  names = {row['method'] for row in results(tmp_path / 'out')}
  assert names == {m.name for m in mtl.methods()}
  assert all(row['status'] == 'ok' for row in results(tmp_path / 'out')), out
