"""Sub-models trained in turn, in flat minima, against joint training.

  python -m experiments.cooperation

See experiments/studies/cooperation.
"""

from experiments.studies.cooperation.study import main

if __name__ == '__main__':
  main()
