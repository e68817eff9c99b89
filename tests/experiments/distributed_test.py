"""The experiment as several processes ends where one process does."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.training import Checkpointer

ROOT = pathlib.Path(__file__).parents[2]
SMALL = (
  '--data.num-train 128 --data.num-validation 32 --data.num-test 32 '
  '--batch-size 32 --epochs 2 --log-every 3 --no-progress --no-tensorboard '
  '--model multi_mlp --methods cagrad --no-baselines --seeds 1 '
  '--optimizer momentum --route jacobian'  # by itself one takes layerwise
).split()
STEPS = 8


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('distributed')


def start(out, processes=1, layout='data', extra=()):
  command = [sys.executable, '-m', 'experiments.multi_digits', '--out', out]
  command += ['--data.dir', out.parent / 'data', *SMALL, *extra]
  if processes > 1:
    launch = [sys.executable, '-m', 'experiments.launch', '--processes']
    command += ['--distributed', '--layout', layout]
    command = [*launch, str(processes), '--', *command]
  return subprocess.Popen(
    [str(part) for part in command],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'NPROC': '16'},
  )


def run(*args, **kwargs):
  process = start(*args, **kwargs)
  out, err = process.communicate(timeout=240)
  assert process.returncode == 0, err[-3000:]
  return out


def cell(out):
  return out / 'runs' / 'cagrad' / 'seed_0'


def arrays(out, step=STEPS):
  """Every array of a checkpoint, read by this process alone."""
  with Checkpointer(cell(out) / 'checkpoints') as checkpointer:
    seal = json.loads((checkpointer.directory / f'{step}.json').read_text())
    names = sorted(seal['leaves'])
    values = _load(checkpointer.directory / str(step))
  return names, values


def _load(path):
  from orbax.checkpoint import v1 as ocp

  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  wanted = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
    ocp.metadata(path).metadata,
  )
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(x)
    for path, x in jax.tree_util.tree_leaves_with_path(ocp.load(path, wanted))
    if jnp.issubdtype(x.dtype, jnp.number)
  }


def same(one, other):
  """Up to rounding, to which momentum, unlike Adam, is no more than linear."""
  assert one[0] == other[0]
  assert one[1].keys() == other[1].keys()
  assert [name for name in one[1] if name.startswith('params/')]
  for name, a in one[1].items():
    b = other[1][name]
    relative = 1e-4 if name.startswith('params/') else 2e-3
    error = np.linalg.norm(a - b)
    assert error <= relative * np.linalg.norm(b) + 1e-6, name


def row(out):
  return json.loads((cell(out) / 'result.json').read_text())


def same_row(one, other):
  for name in ('test/loss/left', 'test/loss/right'):
    np.testing.assert_allclose(row(one)[name], row(other)[name], rtol=1e-4)


@pytest.fixture(scope='module')
def alone(folder):
  out = folder / 'alone'
  run(out)
  return out


def test_two_processes_end_in_the_same_parameters(folder, alone):
  out = folder / 'two'
  said = run(out, 2)
  assert said.count('] cagrad, seed 0') == 1  # by the first process alone
  same(arrays(out), arrays(alone))
  same_row(out, alone)
  metrics = (cell(out) / 'metrics.jsonl').read_text()
  expected = (cell(alone) / 'metrics.jsonl').read_text()
  assert metrics.count('\n') == expected.count('\n')


def forget_the_end(out):
  """As if the run had been ended after its first epoch."""
  (cell(out) / 'result.json').unlink()
  checkpoints = cell(out) / 'checkpoints'
  (checkpoints / f'{STEPS}.json').unlink()
  shutil.rmtree(checkpoints / str(STEPS))


def test_two_processes_go_on_from_the_checkpoint_of_one(folder, alone):
  out = folder / 'copy'
  shutil.copytree(alone, out)
  forget_the_end(out)
  run(out, 2, 'fsdp', extra=['--force'])
  assert row(out)['resumed_from'] == STEPS // 2
  same(arrays(out), arrays(alone))
  # And one goes on from that of two.
  forget_the_end(out)
  run(out, extra=['--force'])
  assert row(out)['resumed_from'] == STEPS // 2
  same_row(out, alone)


@pytest.mark.slow
def test_four_processes_end_in_the_same_parameters(folder, alone):
  out = folder / 'four'
  run(out, 4, 'fsdp')
  same(arrays(out), arrays(alone))


@pytest.mark.slow
def test_sigterm_stops_all_processes_at_one_step(folder):
  more = ('--epochs', '400')
  out = folder / 'stopped'
  process = start(out, 2, extra=more)
  while process.poll() is None and not list(cell(out).glob('*/*.json')):
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=120)
  assert process.returncode == 143, err[-2000:]
  # Not by lines: the two may end theirs after both have been written.
  stopped = re.findall(r'by SIGTERM at step (\d+)', err)
  assert len(stopped) == 2
  assert len(set(stopped)) == 1


def test_distributed_without_a_layout_is_refused(folder):
  process = start(folder / 'refused', extra=['--distributed'])
  _, err = process.communicate(timeout=60)
  assert process.returncode == 1
  assert '--distributed needs --layout data or fsdp' in err


def launch(processes, code):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.launch', '--processes', processes]
    + ['--', sys.executable, '-c', code],
    cwd=ROOT,
    timeout=60,
  ).returncode


def test_the_launcher_ends_with_the_first_bad_status():
  code = 'import os, sys; sys.exit(3 * int(os.environ["JAX_PROCESS_ID"]))'
  assert launch('2', code) == 3
  assert launch('1', code) == 0
