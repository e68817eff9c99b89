"""Do tasks conflict more than samples of one task do?

  python -m experiments.conflict_study

See experiments/studies/conflict.
"""

from experiments.studies.conflict.study import main

if __name__ == '__main__':
  main()
