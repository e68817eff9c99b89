"""Times the steps and the import of this version beside an older one.

python -m benchmarks.against REVISION [--batch N] [--rounds N] [--steps N]

REVISION is checked out into a temporary folder. Two processes, one a version,
build the steps of `benchmarks.steps`; then they take turns, step by step of
each method, in an order that changes. The ratios are medians of the ratios
within each round: above 1, this version is slower. An import runs in a process
of its own each time.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

from benchmarks import _methods, _torchjd, imports

HERE = pathlib.Path(__file__).resolve().parent
SCRIPT = HERE / '_steps_peer.py'


def _environment(folder: pathlib.Path) -> dict[str, str]:
  return os.environ | {'PYTHONPATH': str(folder)}


def _ratio(pairs: list[tuple[float, float]]) -> str:
  return f'{statistics.median(new / old for old, new in pairs):.3f}'


def _row(name: str, pairs: list[tuple[float, float]]) -> None:
  old, new = (statistics.median(side) for side in zip(*pairs, strict=True))
  _methods.row([name, _methods.ms(old), _methods.ms(new), _ratio(pairs)])


def measure_imports(folders: list[pathlib.Path], rounds: int) -> None:
  """Prints the row of `import mtljax`, in ms."""
  statement = 'import mtljax'
  time = lambda f: 1e3 * imports.measure(statement, _environment(f))
  for folder in folders:  # files into the page cache, bytecode written
    time(folder)
  pairs = []
  for i in range(rounds):
    turn = folders if i % 2 else folders[::-1]
    times = {folder: time(folder) for folder in turn}
    pairs.append((times[folders[0]], times[folders[1]]))
  _row(f'`{statement}`', pairs)


def measure_steps(
  folders: list[pathlib.Path], args: argparse.Namespace
) -> None:
  """Prints a row for every method and route."""
  peers = [
    _torchjd.Peer(sys.executable, args.batch, str(SCRIPT), _environment(folder))
    for folder in folders
  ]
  cases = peers[1].request(['cases'])
  for case in cases:
    for peer in peers:
      peer.request(['build', *case])
  pairs = {tuple(case): [] for case in cases}
  shuffle = random.Random(0).shuffle
  for _ in range(args.rounds):
    shuffle(cases)
    for case in cases:
      turn = [0, 1]
      shuffle(turn)
      times = {i: peers[i].request(['run', *case, args.steps]) for i in turn}
      pairs[tuple(case)].append((times[0], times[1]))
  for (name, route), values in pairs.items():
    _row(f'{name}, {route}', values)
  for peer in peers:
    peer.close()


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('revision', help='the older version, as git names it')
  parser.add_argument('--batch', type=int, default=128)
  parser.add_argument('--rounds', type=int, default=15)
  parser.add_argument('--steps', type=int, default=10, help='in a turn')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as scratch:
    older = pathlib.Path(scratch) / 'older'
    git = ['git', '-C', str(HERE.parent), 'worktree']
    subprocess.run(
      [*git, 'add', '-q', '--detach', str(older), args.revision], check=True
    )
    try:
      folders = [older, HERE.parent]
      _methods.head(['', f'{args.revision}, ms', 'this, ms', 'ratio'])
      measure_imports(folders, args.rounds)
      measure_steps(folders, args)
    finally:
      subprocess.run([*git, 'remove', '--force', str(older)], check=True)


if __name__ == '__main__':
  main()
