"""Training steps beside PyTorch and TorchJD.

  python -m benchmarks.vs_torchjd --torchjd PYTHON [--cases ...] [--quick]

Both train the same models from the same parameters on the same batch with Adam,
in one run: `make_train_step` with ``route='auto'`` here; there ``mtl_backward``
and ``jac_to_grad`` in four ways or ``autogram.Engine``, whichever a step of the
first method finds fastest, with fused Adam and, for `sum_losses`, one plain
``backward``.
Before anything is timed the numbers of parameters and the losses are compared.
All methods of both sides take turns of a few steps, in an order that changes;
the times are medians.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import mtljax as mtl
from benchmarks import _methods, _models, _torchjd
from benchmarks._cases import make_case
from mtljax.training import make_train_step

NAMES = (*_models.NAMES, 'encoder')
METHODS = ('sum_losses', 'upgrad', 'mgda', 'cagrad', 'pcgrad')
PLAIN = METHODS[0]
OPTIONS = {'cagrad': {'c': 0.5}}
SCRIPT = pathlib.Path(__file__).with_name('_torch_models.py')


def spec_of(case: _models.Case) -> dict[str, Any]:
  """What the other side builds its modules from."""
  trunk = case.model.trunk
  fields = {
    f.name: getattr(trunk, f.name)
    for f in dataclasses.fields(trunk)
    if f.name not in ('parent', 'name')
  }
  outputs = [
    head.num_outputs if hasattr(head, 'num_outputs') else head.num_classes
    for head in case.model.heads
  ]
  return {
    **fields,
    'trunk': type(trunk).__name__,
    'outputs': outputs,
    'kinds': list(case.kinds),
  }


def save(path: str, case: _models.Case, params: Any) -> None:
  """Writes the parameters by their paths, and the batch."""
  leaves = jax.tree_util.tree_flatten_with_path(params)[0]
  arrays = {'/'.join(e.key for e in entry): leaf for entry, leaf in leaves}
  arrays |= {f'y{t}': y for t, y in enumerate(case.batch['y'])}
  np.savez(path, x=case.batch['x'], **jax.device_get(arrays))


def make_runner(
  case: _models.Case, name: str, mode: str
) -> tuple[Callable[[int], float], Any, str]:
  """``run(steps)`` in ms a step, the first losses, and the route taken."""
  params, model_state, labels = case.init()
  method = mtl.get_method(name)(
    case.model.num_tasks, labels=labels, **OPTIONS.get(name, {})
  )
  init, step, route = make_train_step(
    method, optax.adam(1e-3), case.loss, mode=mode, has_state=True
  )
  state = init(params, key=jax.random.key(1), model_state=model_state)
  state, metrics = step(state, case.batch)

  def run(steps):
    nonlocal state
    jax.block_until_ready(state)
    start = time.perf_counter()
    for _ in range(steps):
      state, _ = step(state, case.batch)
    jax.block_until_ready(state)
    return 1e3 * (time.perf_counter() - start) / steps

  return run, metrics['losses'], route


def take_turns(
  runners: dict[Any, Callable[[int], float]], rounds: int, seconds: float
) -> dict[Any, float]:
  """Median ms a step; fewer rounds where the time is up, but at least one."""
  few = {key: run(1) for key, run in runners.items()}
  steps = {key: max(1, min(20, round(200 / ms))) for key, ms in few.items()}
  times: dict[Any, list[float]] = {key: [] for key in runners}
  order, shuffle = list(runners), random.Random(0).shuffle
  start = time.perf_counter()
  for turn in range(rounds):
    if turn and (time.perf_counter() - start) * (1 + 1 / turn) > seconds:
      break
    shuffle(order)
    for key in order:
      if steps[key] > 1:
        runners[key](1)  # finds the caches as another left them
      times[key].append(runners[key](steps[key]))
  return {key: statistics.median(values) for key, values in times.items()}


def measure(
  case: _models.Case, peer: _torchjd.Peer, args: argparse.Namespace
) -> None:
  """Prints a case's rows."""
  methods = [PLAIN, *(m for m in args.methods if m != PLAIN)]
  params, _, _ = case.init()
  with tempfile.TemporaryDirectory() as folder:
    path = f'{folder}/case.npz'
    save(path, case, params)
    other = peer.request(['load', spec_of(case), path])
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  if other['parameters'] != count:
    raise AssertionError(f'{count} parameters and {other["parameters"]}')
  runners: dict[Any, Callable[[int], float]] = {}
  routes = {}
  for name in methods:
    start = time.perf_counter()
    runners['ours', name], losses, routes[name] = make_runner(
      case, name, args.mode
    )
    np.testing.assert_allclose(losses, other['losses'], rtol=1e-3, atol=1e-4)
    print(f'# {name}: ready in {time.perf_counter() - start:.1f} s', flush=True)
    theirs = None if name == PLAIN else _torchjd.NAMES[name]
    peer.request(['method', name, theirs, OPTIONS.get(name, {})])
    runners['theirs', name] = lambda steps, name=name: peer.request(
      ['run', name, steps]
    )
  if len(methods) > 1:
    print(f'# TorchJD with {peer.request(["form", methods[1]])}', flush=True)
  times = take_turns(runners, args.rounds, args.seconds)
  for name in methods:
    ours, theirs = times['ours', name], times['theirs', name]
    _methods.row(
      [
        case.name,
        f'`{name}`',
        routes[name],
        _methods.ms(ours),
        _methods.ms(theirs),
        f'{theirs / ours:.2f}',
        f'{ours / times["ours", PLAIN]:.1f}',
        f'{theirs / times["theirs", PLAIN]:.1f}',
      ]
    )


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    '--torchjd',
    metavar='PYTHON',
    required=True,
    help='the interpreter of an environment with torch and torchjd[full]',
  )
  parser.add_argument('--cases', nargs='*', default=NAMES)
  parser.add_argument('--methods', nargs='*', default=METHODS)
  parser.add_argument('--mode', default='auto', help='of the backward passes')
  parser.add_argument('--rounds', type=int, default=9)
  parser.add_argument('--seconds', type=float, default=60, help='a case')
  parser.add_argument('--threads', type=int, default=2, help="torch's")
  parser.add_argument(
    '--quick', action='store_true', help='small models, two rounds'
  )
  args = parser.parse_args()
  if args.quick:
    args.rounds = 2
  peer = _torchjd.Peer(args.torchjd, args.threads, str(SCRIPT))
  columns = ['ms', 'PyTorch or TorchJD, ms', 'ratio', '/ plain', '/ its plain']
  _methods.head(['case', 'method', 'route', *columns])
  for name in args.cases:
    measure(make_case(name, args.quick), peer, args)
  peer.close()


if __name__ == '__main__':
  main()
