"""Compares multi-task methods on Census-Income (KDD), the data of MMoE and PLE.

  python -m mtljax.data.fetch census  # where UCI is not reached
  python -m experiments.census

Single-task baselines first, then each method, over several seeds; the state
with the best mean AUC on validation is measured on test. Everything goes to
``--out``, as for ``experiments.multi_digits``; the same command again goes on
where it was stopped, and skips what is finished.
"""

from __future__ import annotations

from experiments.lab import comparison
from experiments.suites.census import SUITE


def main() -> None:
  """The command line."""
  comparison.main(SUITE, 'census')


if __name__ == '__main__':
  main()
