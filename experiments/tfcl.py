"""Linear tasks in groups against tasks that share by rank or by features.

  python -m experiments.tfcl

See experiments/studies/tfcl.
"""

from experiments.studies.tfcl.study import main

if __name__ == '__main__':
  main()
