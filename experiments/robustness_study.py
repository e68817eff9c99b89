"""Are the features of multi-task networks more robust to corrupted images?

  python -m experiments.robustness_study

See experiments/studies/robustness.
"""

from experiments.studies.robustness.study import main

if __name__ == '__main__':
  main()
