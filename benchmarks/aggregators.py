"""Times of whole updates: ``python -m benchmarks.aggregators``.

From per-task gradients of P numbers for each of T tasks to one update: as one
leaf ``(T, P)`` and as a tree of 60 leaves, in the sizes of a ResNet. `two
passes` is what a Gramian method cannot do without: ``J @ J.T`` and ``w @ J``,
timed in turns with the methods. With ``--torchjd PYTHON`` TorchJD's aggregator
is timed in the same run, on the same matrix.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import mtljax as mtl
from benchmarks import _methods, _torchjd


def tree_of(rows: np.ndarray, leaves: int = 60) -> list[jax.Array]:
  """The columns as kernels and biases: sizes from 64 to a tenth of them."""
  num_tasks, size = rows.shape
  shares = np.repeat([1.0, 4.0, 16.0, 64.0], leaves // 8)
  shares = shares / shares.sum() * (size - 64 * (leaves // 2))
  sizes = []
  for share in shares:
    sizes += [9 * 8 * max(1, int(share) // 72), 64]
  sizes += [64] * (leaves - len(sizes))
  sizes[-1] += size - sum(sizes)
  out, start = [], 0
  for count in sizes:
    leaf = rows[:, start : start + count]
    shape = (num_tasks, 3, 3, -1, 8) if count % 72 == 0 else (num_tasks, -1)
    out.append(jnp.asarray(leaf.reshape(shape)))
    start += count
  assert start == size
  return out


def _call(name: str, num_tasks: int, grads):
  """A jitted update, or None."""
  kwargs = _methods.options(name, num_tasks)
  if kwargs is None:
    return None
  method = mtl.get_method(name)(num_tasks, **kwargs)
  params = jax.tree.map(lambda x: x[0], grads)
  state = method.init(params)
  losses = jnp.ones(num_tasks)

  def update(grads, state, params):
    return method.update(grads, state, params, losses=losses)

  update = jax.jit(update)
  return lambda: update(grads, state, params)


def _floor(rows: jax.Array):
  """The two passes over the matrix."""
  share = jnp.full(rows.shape[0], 1 / rows.shape[0])
  gramian = jax.jit(lambda j: j @ j.T)
  combine = jax.jit(lambda w, j: w @ j)
  return {
    'gramian': lambda: gramian(rows),
    'combine': lambda: combine(share, rows),
  }


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  _methods.add_arguments(parser)
  parser.add_argument(
    '--sizes', type=int, nargs='*', default=[100_000, 1_000_000]
  )
  parser.add_argument('--repeats', type=int, default=15)
  parser.add_argument('--seconds', type=float, default=0.6, help='a cell')
  args = parser.parse_args()
  tasks = [8] if args.quick else args.tasks
  sizes = args.sizes[:1] if args.quick else args.sizes
  peer = _torchjd.Peer(args.torchjd) if args.torchjd else None
  theirs = ['TorchJD', 'ratio'] if peer else []
  _methods.head(
    ['method', 'T', 'P', 'one leaf, ms', '/ two passes', '60 leaves', *theirs]
  )
  for num_tasks in tasks:
    for size in sizes:
      rows = _torchjd.jacobian(num_tasks, size)
      leaf, tree = jnp.asarray(rows), tree_of(rows)
      where = [str(num_tasks), f'{size:.0e}']
      calls = _floor(leaf)
      floor = _methods.median_ms(calls, args.repeats, args.seconds)
      two = floor['gramian'] + floor['combine']
      cells = ['two passes', *where, _methods.ms(two), '', '']
      if peer:
        asked = [
          peer.ask('aggregator', n, num_tasks, size, args.seconds) or 0.0
          for n in ('gramian', 'combine')
        ]
        cells += [_methods.ms(sum(asked)), _methods.ratio(two, sum(asked))]
      _methods.row(cells)
      for name in args.methods or _methods.names():
        forms = {'leaf': _call(name, num_tasks, leaf)}
        if forms['leaf'] is None:
          continue
        if size == max(sizes):
          forms['tree'] = _call(name, num_tasks, tree)
        # The floor again, in the same turns.
        times = _methods.median_ms(
          {**forms, **calls}, args.repeats, args.seconds
        )
        two = times['gramian'] + times['combine']
        cells = [
          f'`{name}`',
          *where,
          _methods.ms(times['leaf']),
          f'{times["leaf"] / two:.2f}',
          _methods.ms(times.get('tree')),
        ]
        if peer:
          ask = peer.ask('aggregator', name, num_tasks, size, args.seconds)
          cells += [_methods.ms(ask), _methods.ratio(times['leaf'], ask)]
        _methods.row(cells)
  if peer:
    peer.close()


if __name__ == '__main__':
  main()
