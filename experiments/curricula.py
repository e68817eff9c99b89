"""Curricula over tasks and instances against random orders.

  python -m experiments.curricula

See experiments/studies/curricula.
"""

from experiments.studies.curricula.study import main

if __name__ == '__main__':
  main()
