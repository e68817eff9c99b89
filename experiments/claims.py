"""What papers say of their methods, each claim on its own.

  python -m experiments.claims

See experiments/studies/claims.
"""

from experiments.studies.claims.study import main

if __name__ == '__main__':
  main()
