"""Does the optimizer matter more than the method?

  python -m experiments.optimizer_study

See experiments/studies/optimizer.
"""

from experiments.studies.optimizer.study import main

if __name__ == '__main__':
  main()
