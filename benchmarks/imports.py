"""Times `import mtljax` beside the imports of what it is built on.

python -m benchmarks.imports [--quick]

Each import runs in a process of its own, the variants in turn; the time is
taken inside the process, around the import alone.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

VARIANTS = ('import jax, optax', 'import jax, optax, chex', 'import mtljax')
PROGRAM = """
import time
start = time.perf_counter()
{statement}
print(time.perf_counter() - start)
"""


def measure(statement: str, env: dict[str, str] | None = None) -> float:
  """Seconds that a statement takes in a fresh process."""
  out = subprocess.run(
    [sys.executable, '-c', PROGRAM.format(statement=statement)],
    capture_output=True,
    text=True,
    check=True,
    env=env,
  )
  return float(out.stdout)


def main() -> None:
  """The command line."""
  rounds = 2 if '--quick' in sys.argv[1:] else 11
  for statement in VARIANTS:  # files into the page cache, bytecode written
    measure(statement)
  times: dict[str, list[float]] = {statement: [] for statement in VARIANTS}
  for _ in range(rounds):
    for statement in VARIANTS:
      times[statement].append(measure(statement))
  base = times[VARIANTS[0]]
  print(f'{"seconds over " + str(rounds) + " rounds":<28}{"median":>8}', end='')
  print(f'{"min":>8}{"extra":>8}')
  for statement, values in times.items():
    extra = statistics.median(
      value - first for value, first in zip(values, base, strict=True)
    )
    print(
      f'{statement:<28}{statistics.median(values):>8.3f}'
      f'{min(values):>8.3f}{extra:>+8.3f}'
    )


if __name__ == '__main__':
  main()
