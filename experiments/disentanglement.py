"""Rankings of methods by features, gradients, backbones and the test.

  python -m experiments.disentanglement

See experiments/studies/disentanglement.
"""

from experiments.studies.disentanglement.study import main

if __name__ == '__main__':
  main()
