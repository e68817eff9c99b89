"""Kills a command at file operations, and compares what it ends with."""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

import mtljax
from mtljax.training import TIMING
from mtljax.training.disk import _seal

_ROOT = pathlib.Path(mtljax.__file__).parents[1]
_TIMES = ('wall_time', 'steps_per_second', 'resumed_from')


@dataclasses.dataclass
class Attack:
  """What was done to a command.

  Attributes:
    operations: how many file operations the undisturbed run had.
    kills: before what the process was killed, as often.
    ends: how often the command came to its end, and to the same numbers.
  """

  operations: int
  kills: collections.Counter[str]
  ends: int

  def __str__(self) -> str:
    kinds = collections.Counter(x.split()[0] for x in self.kills.elements())
    before = ', '.join(f'{n} {kind}' for kind, n in kinds.most_common())
    return (
      f'{self.operations} operations, {self.kills.total()} kills before '
      f'{before}; {self.ends} times to the end, with the same results'
    )


def attack(
  folder: pathlib.Path, command: Sequence[Any], *, kills: int, seed: int
) -> Attack:
  """Kills a command as often, and goes on with it after each kill.

  A kill comes before a file operation that is drawn from those of an
  undisturbed run. Where the rest of a run has fewer, it comes to its end, is
  compared, and the next begins anew.

  Args:
    folder: where the runs go.
    command: a module and its arguments, without ``--out``.
    kills: how many.
    seed: of the draws.

  Raises:
    AssertionError: a run ended otherwise than by the kill, or in other numbers.
  """
  log = folder / 'log'
  undisturbed, out = folder / 'undisturbed', folder / 'out'
  with _server(folder, command) as run:
    run(undisturbed, 0, log)
    operations = int(_last(log))
    expected = contents(undisturbed)
    rng, done, ends = random.Random(seed), collections.Counter(), 0
    while done.total() < kills:
      if run(out, rng.randint(1, operations), log):
        done[_last(log)] += 1
      else:
        _compare(contents(out), expected)
        ends += 1
        shutil.rmtree(out)
    if out.exists():
      run(out, 0, log)
      _compare(contents(out), expected)
      ends += 1
  return Attack(operations, done, ends)


@contextlib.contextmanager
def _server(
  folder: pathlib.Path, command: Sequence[Any]
) -> Iterator[Callable[[pathlib.Path, int, pathlib.Path], bool]]:
  """What runs the command, and says whether it was killed."""
  script = pathlib.Path(__file__).with_name('killed_at.py')
  paths = [str(_ROOT), os.environ.get('PYTHONPATH', '')]
  process = subprocess.Popen(
    [sys.executable, '-W', 'ignore', str(script), *map(str, command)],
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      # All runs share their programs, which take most of the time.
      'JAX_COMPILATION_CACHE_DIR': str(folder / 'programs'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
      'PYTHONPATH': os.pathsep.join(filter(None, paths)),
    },
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    cwd=_ROOT,
  )
  assert process.stdin is not None and process.stdout is not None
  asks, answers = process.stdin, process.stdout

  def run(out, number, log):
    asked = {'out': str(out), 'number': number, 'log': str(log)}
    asks.write(json.dumps(asked) + '\n')
    asks.flush()
    answer = json.loads(answers.readline())
    assert answer['status'] in (0, -signal.SIGKILL), answer['said']
    assert 'Traceback' not in answer['said'], answer['said']
    return answer['status'] != 0

  try:
    yield run
  finally:
    process.kill()
    process.communicate()


def _last(log: pathlib.Path) -> str:
  return log.read_text().splitlines()[-1]


def contents(out: pathlib.Path) -> dict[str, Any]:
  """All numbers in a folder that two runs of a command share."""
  found: dict[str, Any] = {}
  with (out / 'results.csv').open(newline='') as file:
    found['results.csv'] = [
      {k: v for k, v in row.items() if k not in _TIMES}
      for row in csv.DictReader(file)
    ]
  for path in sorted((out / 'runs').rglob('*')):
    name = str(path.relative_to(out))
    if path.suffix == '.jsonl':
      found[name] = [
        {k: v for k, v in json.loads(line).items() if k not in TIMING}
        for line in path.read_text().splitlines()
      ]
    elif path.suffix == '.npz':
      with np.load(path) as arrays:
        found[name] = {k: _bits(v) for k, v in arrays.items() if k != 'seal'}
    elif path.name == 'checkpoints':
      step = max(_seal.steps_on_disk(path, sealed=True))
      with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # it restores where it was saved
        tree = ocp.load(path / str(step))
      found[name] = (
        step,
        [
          (jax.tree_util.keystr(where), _bits(leaf))
          for where, leaf in jax.tree_util.tree_leaves_with_path(tree)
        ],
      )
  return found


def _bits(array: Any) -> tuple[str, tuple[int, ...], bytes]:
  if jax.dtypes.issubdtype(getattr(array, 'dtype', None), jax.dtypes.prng_key):
    array = jax.random.key_data(array)
  array = np.asarray(array)
  return array.dtype.str, array.shape, array.tobytes()


def _compare(found: dict[str, Any], expected: dict[str, Any]) -> None:
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    assert found[name] == value, name
