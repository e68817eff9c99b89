"""Compares multi-task methods on two overlapping handwritten digits.

  python -m experiments.multi_digits

Single-task baselines first, then each method, over several seeds; the state
with the best validation accuracy is measured on test. Everything goes to
``--out``: ``config.json``, ``runs/<method>/seed_<k>/`` with metrics and
checkpoints, ``results.csv``, ``summary.json`` and ``report.html``. The same
command again goes on where it was stopped, and skips what is finished.
"""

from __future__ import annotations

from experiments.lab import comparison
from experiments.suites.digits import SUITE


def main() -> None:
  """The command line."""
  comparison.main(SUITE, 'multi_digits')


if __name__ == '__main__':
  main()
