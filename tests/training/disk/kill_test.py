"""Killed at any moment and resumed, a run ends in the same bits."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import mtljax
from mtljax.training import TIMING

ROOT = pathlib.Path(mtljax.__file__).parents[1]
SCRIPT = pathlib.Path(__file__).with_name('kill_script.py')


def start(out):
  # The script's own folder would be first on the path, not this package's.
  paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
  return subprocess.Popen(
    [sys.executable, str(SCRIPT), str(out)],
    env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, paths))},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(out):
  process = start(out)
  output = process.communicate()
  assert process.returncode == 0, output
  return output


def kill_when(out, condition, delay=0.0):
  """Starts the run, kills it; false if it came to its end before that."""
  process = start(out)
  while process.poll() is None and not condition(out):
    time.sleep(0.001)
  time.sleep(delay)
  process.kill()
  output = process.communicate()
  assert process.returncode in (0, -signal.SIGKILL), output
  return process.returncode != 0


def sealed(out):
  return max((int(p.stem) for p in out.glob('checkpoints/*.json')), default=0)


def logged(out):
  path = out / 'metrics.jsonl'
  return path.read_bytes().count(b'\n') if path.exists() else 0


def saving(out):
  return any(out.glob('checkpoints/*tmp*'))


def result(out):
  lines = [
    {k: v for k, v in json.loads(line).items() if k not in TIMING}
    for line in (out / 'metrics.jsonl').read_text().splitlines()
  ]
  with np.load(out / 'final.npz') as data:
    arrays = {k: (v.dtype, v.shape, v.tobytes()) for k, v in data.items()}
  return arrays, lines


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  out = tmp_path_factory.mktemp('undisturbed')
  assert finish(out) == ('', '')
  arrays, lines = result(out)
  assert len(arrays) == 15
  assert len(lines) == 24
  return arrays, lines


def test_killed_twice(tmp_path, undisturbed):
  assert kill_when(tmp_path, lambda out: sealed(out) >= 6 and saving(out))
  assert saving(tmp_path)
  first = sealed(tmp_path)
  assert kill_when(tmp_path, lambda out: sealed(out) >= first + 6)
  assert first < sealed(tmp_path) < 24
  finish(tmp_path)
  assert result(tmp_path) == undisturbed


def test_ended_by_sigterm(tmp_path, undisturbed):
  for stop in (4, 11):  # between an evaluation and the next, within a line
    process = start(tmp_path)
    while process.poll() is None and logged(tmp_path) < stop:
      time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert out == ''
    saved = sealed(tmp_path)
    assert err == (
      f'stopped by SIGTERM at step {saved}, saved in '
      f'{tmp_path / "checkpoints"}; run the same command to go on\n'
    )
  finish(tmp_path)
  assert result(tmp_path) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize('trial', range(6))
def test_killed_at_random(tmp_path, undisturbed, trial):
  rng = random.Random(trial)
  for _ in range(3):
    before = logged(tmp_path)
    kill_when(
      tmp_path,
      lambda out, n=before: logged(out) > n,
      delay=rng.uniform(0.0, 0.7),
    )
  finish(tmp_path)
  assert result(tmp_path) == undisturbed
