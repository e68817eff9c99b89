"""Which tasks belong together, by what is measured in one joint run.

  python -m experiments.grouping

See experiments/studies/grouping.
"""

from experiments.studies.grouping.study import main

if __name__ == '__main__':
  main()
