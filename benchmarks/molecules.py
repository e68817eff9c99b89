"""Messages of NNConv, reordered and with a matrix an edge, on this machine.

  python -m benchmarks.molecules [--quick]

The network of the QM9 comparisons with eleven heads, forward and backward, on
molecules padded to 29 atoms, of 18 on average. The two forms take turns, so
that load hits both alike; the best of the rounds counts. A matrix an edge takes
so much memory that it has a smaller batch, and times are those of a molecule.
"""

from __future__ import annotations

import argparse
import sys

import jax
import jax.numpy as jnp
import numpy as np

from mtljax import models
from mtljax.training.step import _turns

ATOMS = 29
MEAN_ATOMS = 18


def make_molecules(count: int) -> dict[str, jax.Array]:
  """Made-up molecules, with as many atoms as those of QM9."""
  rng = np.random.default_rng(0)
  sizes = rng.integers(MEAN_ATOMS - 3, MEAN_ATOMS + 4, count)
  atoms = np.arange(ATOMS) < sizes[:, None]
  numbers = atoms * rng.choice([1, 6, 7, 8, 9], atoms.shape)
  positions = atoms[..., None] * rng.uniform(-4, 4, (*atoms.shape, 3))
  return {
    'numbers': jnp.asarray(numbers, jnp.uint8),
    'positions': jnp.asarray(positions, jnp.float32),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--quick', action='store_true', help='two rounds')
  rounds = 2 if parser.parse_args().quick else 5
  tasks = [str(t) for t in range(11)]
  batches = {'reordered': 120, 'matrices': 8}
  runs, memory = {}, {}
  for form, batch in batches.items():
    model = models.nnconv(tasks, form=form)
    x = make_molecules(batch)
    params, _ = jax.jit(model.init)(jax.random.key(0), x)

    def loss(params, model=model, x=x):
      return sum(jnp.mean(y**2) for y in model.apply(params, {}, x))

    step = jax.jit(jax.grad(loss)).lower(params).compile()
    memory[form] = step.memory_analysis().temp_size_in_bytes

    def run(steps, step=step, params=params):
      for _ in range(steps):
        jax.block_until_ready(step(params))

    runs[form] = run
    run(1)
  times = _turns.take_turns(runs, rounds, lambda _: 2)
  sys.stdout.write(
    f'jax {jax.__version__}, {jax.default_backend()}, forward and backward\n'
    f'{"messages":12s} {"batch":>6s} {"ms":>8s} {"ms / molecule":>14s} '
    f'{"MiB / molecule":>15s} {"faster":>7s} {"smaller":>8s}\n'
  )
  each = {form: min(times[form]) / batches[form] for form in batches}
  size = {form: memory[form] / batches[form] / 2**20 for form in batches}
  for form, batch in batches.items():
    sys.stdout.write(
      f'{form:12s} {batch:6d} {min(times[form]):8.0f} {each[form]:14.1f} '
      f'{size[form]:15.1f} {each["matrices"] / each[form]:7.1f} '
      f'{size["matrices"] / size[form]:8.1f}\n'
    )


if __name__ == '__main__':
  main()
