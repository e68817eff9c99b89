"""Instance-wise risk minimization beside TorchJD's engine.

  python -m benchmarks.samples [--torchjd PYTHON] [--sizes 16 64 256]

A training step in which every sample of the batch is a task: UPGrad on the
Gramian of their gradients, then one weighted backward pass and a step of SGD.
The first network is that of TorchJD's own example (10-5-1, mean squared error),
the second a wider one (64-512-512-1). Here it is `make_train_step` with
``tasks='samples'``; there ``autogram.Engine``, ``UPGradWeighting`` and
``losses.backward(weights)``. Medians of rounds; memory is what the compiled
step asks for besides its arguments. --torchjd names the interpreter of an
environment with ``torch`` and ``torchjd[full]``; without it that column is
empty.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time

import jax
import jax.numpy as jnp
import optax

import mtljax as mtl
from benchmarks import _methods
from mtljax.training import make_train_step

NETWORKS = {'iwrm': (10, 5, 1), 'wide': (64, 512, 512, 1)}
PEER = """
import json, statistics, sys, time, torch
from torchjd.aggregation import UPGradWeighting
from torchjd.autogram import Engine
widths, size, rounds, steps, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
layers = []
for a, b in zip(widths[:-1], widths[1:]):
    layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
model = torch.nn.Sequential(*layers[:-1])
x, y = torch.randn(size, widths[0]), torch.randn(size)
engine, weighting = Engine(model, batch_dim=0), UPGradWeighting()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
def step():
    losses = (model(x).squeeze(1) - y) ** 2
    weights = weighting(engine.compute_gramian(losses))
    losses.backward(weights)
    optimizer.step()
    optimizer.zero_grad()
times = []
for turn in range(rounds + 1):
    start = time.perf_counter()
    for _ in range(steps):
        step()
    times.append(1e3 * (time.perf_counter() - start) / steps)
print(statistics.median(times[1:]))
"""


def network_loss(params, batch):
  """The mean squared error of a network of dense layers."""
  z = batch['x']
  for i, (w, b) in enumerate(params):
    z = z @ w + b[None]
    z = jax.nn.relu(z) if i < len(params) - 1 else z
  return jnp.mean((z[:, 0] - batch['y']) ** 2)


def ours(widths, size, rounds, steps) -> tuple[float, int]:
  """Milliseconds a step, and its bytes."""
  keys = jax.random.split(jax.random.key(0), len(widths))
  params = [
    (jax.random.normal(key, (a, b)) / a**0.5, jnp.zeros(b))
    for key, a, b in zip(keys, widths[:-1], widths[1:], strict=False)
  ]
  batch = {
    'x': jax.random.normal(keys[-1], (size, widths[0])),
    'y': jax.random.normal(keys[0], (size,)),
  }
  train = make_train_step(
    mtl.upgrad(size), optax.sgd(1e-3), network_loss, tasks='samples'
  )
  state = train.init(params, key=jax.random.key(1))
  compiled = train.step.lower(state, batch).compile()
  times = []
  for _ in range(rounds + 1):
    start = time.perf_counter()
    for _ in range(steps):
      state, _ = compiled(state, batch)
    jax.block_until_ready(state)
    times.append(1e3 * (time.perf_counter() - start) / steps)
  memory = compiled.memory_analysis().temp_size_in_bytes
  return statistics.median(times[1:]), memory


def theirs(python, widths, size, rounds, steps, threads) -> float | None:
  """Milliseconds a step of TorchJD's engine."""
  if python is None:
    return None
  given = json.dumps([widths, size, rounds, steps, threads])
  done = subprocess.run(
    [python, '-c', PEER, given], capture_output=True, text=True, check=True
  )
  return float(done.stdout.split()[-1])


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--torchjd', metavar='PYTHON')
  parser.add_argument('--sizes', type=int, nargs='*', default=[16, 64, 256])
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--steps', type=int, default=10)
  parser.add_argument('--threads', type=int, default=2, help="torch's")
  args = parser.parse_args()
  columns = ['network', 'B', 'ms', 'MB', 'TorchJD, ms', 'ratio']
  _methods.head(columns)
  for name, widths in NETWORKS.items():
    for size in args.sizes:
      mine, memory = ours(widths, size, args.rounds, args.steps)
      peer = theirs(
        args.torchjd, widths, size, args.rounds, args.steps, args.threads
      )
      _methods.row(
        [
          name,
          str(size),
          _methods.ms(mine),
          f'{memory / 1e6:.3g}',
          _methods.ms(peer),
          _methods.ratio(mine, peer),
        ]
      )


if __name__ == '__main__':
  main()
