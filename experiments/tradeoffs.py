"""Curves of trade-offs beside a grid of fixed weights, at equal compute.

  python -m experiments.tradeoffs

See experiments/studies/tradeoffs.
"""

from experiments.studies.tradeoffs.study import main

if __name__ == '__main__':
  main()
