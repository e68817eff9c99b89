"""Methods on the losses of physics-informed networks.

  python -m experiments.pinn

See experiments/studies/pinn.
"""

from experiments.studies.pinn.study import main

if __name__ == '__main__':
  main()
