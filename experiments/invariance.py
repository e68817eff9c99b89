"""What a constant factor on a task's loss changes, setting by setting.

  python -m experiments.invariance

See experiments/studies/invariance.
"""

from experiments.studies.invariance.study import main

if __name__ == '__main__':
  main()
