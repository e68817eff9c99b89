"""Networks of single tasks merged into one, beside joint training.

  python -m experiments.merging

See experiments/studies/merging.
"""

from experiments.studies.merging.study import main

if __name__ == '__main__':
  main()
