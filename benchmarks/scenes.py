"""Times rendering scenes: how many a second, by size in pixels.

python -m benchmarks.scenes [sizes]
"""

import sys
import time

import jax

from mtljax import data

SECONDS = 5.0


def main():
  sizes = [int(x) for x in sys.argv[1:]] or [64, 128, 288]
  print(f'{"pixels":>7} {"batch":>6} {"scenes/s":>9}')
  for size in sizes:
    batch = max(1, 64 * 64 * 64 // size**2)
    key = jax.random.key(0)
    jax.block_until_ready(data.render_scenes(key, batch, size))
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
      key = jax.random.fold_in(key, 1)
      jax.block_until_ready(data.render_scenes(key, batch, size))
      count += batch
    rate = count / (time.perf_counter() - start)
    print(f'{size:>7} {batch:>6} {rate:>9.0f}')


if __name__ == '__main__':
  main()
