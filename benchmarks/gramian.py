"""Times of ``J J^T`` on one CPU device: ``python -m benchmarks.gramian``.

One matrix product against what `mtljax.gramian` does instead with long rows,
see ``mtljax._tree.leaf_products``. Float32; the error is that of the latter
against float64, relative to the longest row's squared length.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import mtljax as mtl
from benchmarks import _methods, _torchjd


def main() -> None:
  """Prints the table."""
  _methods.head(['T', 'P', 'product, ms', 'here, ms', 'ratio', 'error'])
  product = jax.jit(lambda j: jnp.matmul(j, j.T, precision='highest'))
  gramian = jax.jit(mtl.gramian)
  for num_tasks in (2, 3, 5, 8, 10, 20, 40):
    for size in (100_000, 1_000_000):
      rows = _torchjd.jacobian(num_tasks, size)
      leaf, exact = jnp.asarray(rows), rows.astype(np.float64)
      exact = exact @ exact.T
      times = _methods.median_ms(
        {
          'product': lambda leaf=leaf: product(leaf),
          'here': lambda leaf=leaf: gramian(leaf),
        },
        repeats=20,
      )
      error = np.max(np.abs(gramian(leaf) - exact)) / np.max(exact)
      _methods.row(
        [
          str(num_tasks),
          f'{size:.0e}',
          _methods.ms(times['product']),
          _methods.ms(times['here']),
          _methods.ratio(times['here'], times['product']),
          f'{error:.0e}',
        ]
      )


if __name__ == '__main__':
  main()
