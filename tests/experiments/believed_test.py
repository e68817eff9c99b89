"""Nothing is believed of a finished run that its own files do not bear out."""

import csv
import json
import shutil

import here
import pytest

from experiments import multi_digits

SMALL = (
  '--data.num-train 64 --data.num-validation 32 --data.num-test 32 --seeds 2 '
  '--batch-size 32 --epochs 2 --log-every 1 --no-progress --no-tensorboard '
  '--no-baselines --methods mgda --model multi_mlp --sweep loop'
).split()


def options(out):
  return '--out', out, '--data.dir', out.parent / 'data', *SMALL


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  out = tmp_path_factory.mktemp('believed') / 'run'
  here.run(multi_digits.main, *options(out))
  return out


@pytest.fixture
def out(finished):
  """As it was when the study had ended."""
  copy = finished.with_name('copy')
  shutil.copytree(finished, copy)
  yield copy
  shutil.rmtree(copy)


def numbers(out):
  with (out / 'results.csv').open() as file:
    return [
      {k: v for k, v in row.items() if k.startswith(('test', 'valid', 'best'))}
      for row in csv.DictReader(file)
    ]


def lines(out):
  return [p.read_bytes() for p in sorted(out.glob('runs/*/*/metrics.jsonl'))]


def test_results_of_another_run_or_without_a_digest(
  finished, out, capsys, caplog
):
  """Their ends are done again, and no line of the metrics is doubled."""
  folders = [out / 'runs' / 'mgda' / f'seed_{seed}' for seed in range(2)]
  shutil.copy(folders[1] / 'result.json', folders[0] / 'result.json')
  result = json.loads((folders[1] / 'result.json').read_text())
  del result['digest']
  result['test/accuracy/left'] = 1.0
  (folders[1] / 'result.json').write_text(json.dumps(result))
  found = here.call(capsys, multi_digits.main, *options(out))
  assert found.returncode == 0, found.stderr
  said = ' '.join((found.stdout + found.stderr + caplog.text).split())
  assert 'it is of mgda, seed 1' in said and 'it has no digest' in said
  assert 'Traceback' not in said
  assert numbers(out) == numbers(finished)
  assert list(map(len, lines(out))) == list(map(len, lines(finished)))
  for after, before in zip(lines(out), lines(finished), strict=True):
    tests = [line for line in after.splitlines() if b'"test"' in line]
    assert len(tests) == 1
    assert tests[0] in before.splitlines()
