"""Tests the claims of task-based flat regions (F-MTL) on a data set.

  python -m experiments.flat_regions

See experiments/studies/flat_regions.
"""

from experiments.studies.flat_regions.study import main

if __name__ == '__main__':
  main()
