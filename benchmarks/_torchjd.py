"""TorchJD's side of the timings, run by the interpreter that has it.

``python _torchjd.py`` reads one JSON request a line, times it and answers with
one line, so that the two libraries take turns in one run. `Peer` is the other
end. Both make the same matrices, by `jacobian`.
"""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

NAMES = {
  'mean': 'Mean',
  'sum_losses': 'Sum',
  'rlw': 'Random',
  'upgrad': 'UPGrad',
  'dual_proj': 'DualProj',
  'mgda': 'MGDA',
  'cagrad': 'CAGrad',
  'nash_mtl': 'NashMTL',
  'fairgrad': 'FairGrad',
  'imtl_g': 'IMTLG',
  'aligned_mtl': 'AlignedMTL',
  'conflict_free': 'ConFIG',
  'pcgrad': 'PCGrad',
  'gradvac': 'GradVac',
  'pcd': 'PCD',
  'krum': 'Krum',
  'graddrop': 'GradDrop',
  'trimmed_mean': 'TrimmedMean',
  'excess_mtl': 'ExcessMTL',
}


def options(name: str, num_tasks: int) -> dict[str, Any] | None:
  """TorchJD's arguments for a method; None where it is not defined."""
  if name == 'krum':
    return {'n_byzantine': 1, 'n_selected': 1} if num_tasks >= 4 else None
  if name == 'trimmed_mean':
    return {'trim_number': 1} if num_tasks >= 3 else None
  return {
    # At the accuracy that is compared.
    'mgda': {'epsilon': 1e-6, 'max_iters': 1000},
    'cagrad': {'c': 0.5},
    'nash_mtl': {'n_tasks': num_tasks},
    'fairgrad': {'alpha': 1.0},
  }.get(name, {})


def jacobian(num_tasks: int, size: int) -> np.ndarray:
  """Float32 rows, most pairs of which conflict, shape ``(T, P)``."""
  rng = np.random.default_rng(num_tasks)
  rows = rng.standard_normal((num_tasks, size), np.float32)
  return rows - np.float32(0.9) * rows.mean(0)


def median_ms(
  call: Callable[[], object], seconds: float, most: int = 30
) -> float:
  """The median of up to ``most`` calls within a budget, after one more."""
  call()
  times: list[float] = []
  first = time.perf_counter()
  while len(times) < 3 or (
    len(times) < most and time.perf_counter() - first < seconds
  ):
    start = time.perf_counter()
    call()
    times.append(1e3 * (time.perf_counter() - start))
  return statistics.median(times)


class Peer:
  """Starts a script in another environment and asks it for timings."""

  def __init__(
    self,
    python: str,
    threads: int = 2,
    script: str = __file__,
    env: dict[str, str] | None = None,
  ):
    self._process = subprocess.Popen(
      [python, script, str(threads)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=env,
    )

  def ask(
    self, kind: str, name: str, num_tasks: int, size: int, seconds: float
  ) -> float | None:
    """The median in ms; None where TorchJD has no such method.

    Args:
      kind: ``'weighting'``, the solver on the Gramian, or ``'aggregator'``,
        the whole call.
      name: the method's name in this package, or ``'gramian'``, ``'combine'``.
      num_tasks: T.
      size: P.
      seconds: the budget.
    """
    return self.request([kind, name, num_tasks, size, seconds])

  def request(self, request: Any) -> Any:
    """The script's answer to one line of JSON."""
    assert self._process.stdin is not None
    assert self._process.stdout is not None
    self._process.stdin.write(json.dumps(request) + '\n')
    self._process.stdin.flush()
    answer = self._process.stdout.readline()
    if not answer:
      raise RuntimeError('the other process has ended, see above.')
    return json.loads(answer)

  def close(self) -> None:
    """Ends the other process."""
    assert self._process.stdin is not None
    self._process.stdin.close()
    self._process.wait()


def _gramian(rows):
  return rows @ rows.T


def _call(aggregation, kind, name, held):
  """TorchJD's method on a matrix, or on its Gramian; None if it has none."""
  num_tasks = held.shape[0]
  kwargs = options(name, num_tasks)
  if kwargs is None:
    return None
  if kind == 'aggregator':
    method = getattr(aggregation, NAMES[name])(**kwargs)
    return lambda: method(held)
  if name == 'nash_mtl':
    # It reads the matrix; with few columns that costs nothing.
    method = aggregation.NashMTL(**kwargs).weighting
    few = held[:, :1000]
    return lambda: method(few)
  factory = getattr(aggregation, NAMES[name] + 'Weighting', None)
  if factory is None:
    return None
  method, gramian = factory(**kwargs), held @ held.T
  return lambda: method(gramian)


def _serve(threads: int) -> None:
  import torch  # pyrefly: ignore[missing-import]
  from torchjd import aggregation  # pyrefly: ignore[missing-import]

  torch.set_num_threads(threads)
  held, key = None, None
  for line in sys.stdin:
    kind, name, num_tasks, size, seconds = json.loads(line)
    if key != (num_tasks, size):
      held, key = torch.from_numpy(jacobian(num_tasks, size)), (num_tasks, size)
    answer = None
    if name == 'gramian':
      answer = median_ms(functools.partial(_gramian, held), seconds)
    elif name == 'combine':
      share = torch.full((num_tasks,), 1 / num_tasks)
      answer = median_ms(functools.partial(torch.matmul, share, held), seconds)
    elif name in NAMES:
      call = _call(aggregation, kind, name, held)
      try:
        answer = None if call is None else median_ms(call, seconds)
      except (RuntimeError, ValueError) as error:  # A failure is not a time.
        print(f'{name}, T={num_tasks}: {error!r}', file=sys.stderr)
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  _serve(int(sys.argv[1]))
