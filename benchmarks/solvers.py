"""Times and accuracy of the weightings alone: ``python -m benchmarks.solvers``.

From a Gramian to weights: one jitted call, and 64 Gramians at once under
``jax.vmap``, per solve. With ``--torchjd PYTHON`` TorchJD's weighting is timed
in the same run, on the same Gramian. ``--accuracy`` prints instead the largest
float32 error of the update over the zoo of the tests, and where it is.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import jax
import jax.numpy as jnp

import mtljax as mtl
from benchmarks import _methods, _torchjd
from mtljax import weightings

TESTS = pathlib.Path(__file__).parents[1] / 'tests' / 'helpers'


def _calls(name: str, num_tasks: int, gramian: jax.Array, lanes: int):
  """One solve, and ``lanes`` at once, each jitted."""
  kwargs = _methods.options(name, num_tasks)
  factory = getattr(weightings, name, None)
  if kwargs is None or factory is None:
    return {}
  weighting = factory(**kwargs)
  state = weighting.init(num_tasks)
  losses = jnp.ones(num_tasks)

  def update(gramian):
    stats = mtl.TaskStats(losses=losses, gramian=gramian)
    return weighting.update(stats, state)

  one, many = jax.jit(update), jax.jit(jax.vmap(update))
  size = 2 * num_tasks + 20
  rows = jax.random.normal(jax.random.key(0), (lanes, num_tasks, size))
  rows = rows - 0.9 * jnp.mean(rows, 1, keepdims=True)
  batch = jnp.einsum('bip,bjp->bij', rows, rows)
  return {'one': lambda: one(gramian), 'many': lambda: many(batch)}


def _print_accuracy() -> None:
  """The largest error of every method, by condition number."""
  sys.path.insert(0, str(TESTS))
  import accuracy  # pyrefly: ignore[missing-import]

  _methods.head(
    [
      'method',
      'error, condition up to 1e3',
      'error beyond',
      'of the bound',
      'there',
      'finite',
    ]
  )
  with jax.enable_x64(True):
    given = accuracy.cases()
    for name, weighting in accuracy.METHODS.items():
      results = accuracy.measure(weighting, given)
      well = [r for r in results if r.case.condition <= 1e3]
      ill = [r for r in results if r.case.condition > 1e3]

      def part(result, name=name):
        return result.error / accuracy.allowed(name, result.case)

      worst = max(ill, key=part)
      _methods.row(
        [
          f'`{name}`',
          f'{max(r.error for r in well):.1e}',
          f'{max(r.error for r in ill):.1e}',
          f'{part(worst):.1e}',
          worst.case.name,
          'yes' if all(r.finite for r in results) else 'no',
        ]
      )


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  _methods.add_arguments(parser)
  parser.add_argument('--accuracy', action='store_true')
  parser.add_argument('--lanes', type=int, default=64)
  parser.add_argument('--repeats', type=int, default=30)
  args = parser.parse_args()
  if args.accuracy:
    _print_accuracy()
    return
  tasks = [8] if args.quick else args.tasks
  repeats = 10 if args.quick else args.repeats
  peer = _torchjd.Peer(args.torchjd) if args.torchjd else None
  theirs = ['TorchJD', 'ratio'] if peer else []
  _methods.head(['method', 'T', 'ms', *theirs, f'ms of {args.lanes}, each'])
  for num_tasks in tasks:
    rows = jnp.asarray(_torchjd.jacobian(num_tasks, 100_000))
    gramian = rows @ rows.T
    for name in args.methods or _methods.names():
      calls = _calls(name, num_tasks, gramian, args.lanes)
      if not calls:
        continue
      times = _methods.median_ms(calls, repeats, seconds=2)
      other = []
      if peer:
        ask = peer.ask('weighting', name, num_tasks, 100_000, 0.7)
        other = [_methods.ms(ask), _methods.ratio(times['one'], ask)]
      many = _methods.ms(times['many'] / args.lanes)
      _methods.row(
        [f'`{name}`', str(num_tasks), _methods.ms(times['one']), *other, many]
      )
  if peer:
    peer.close()


if __name__ == '__main__':
  main()
