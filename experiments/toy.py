"""Optimizers and methods on the two-task toy problem.

  python -m experiments.toy

See experiments/studies/toy.
"""

from experiments.studies.toy.study import main

if __name__ == '__main__':
  main()
