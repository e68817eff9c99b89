"""From a base model to the schedule of each arm, and what an order costs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.studies.curricula.claims import (
  BOTH,
  INSTANCES,
  ORDER,
  RANDOM,
  REVERSED,
)
from experiments.studies.curricula.problems import Kind, OwnedRows
from mtljax.data import curricula

#: Random orders that the z-score is taken over.
DRAWN = 10_000
#: What an arm is made of: neighbours in the order, and instances.
PARTS = {
  BOTH: ('alike', 'easy'),
  ORDER: ('alike', 'random'),
  INSTANCES: ('random', 'easy'),
  RANDOM: ('random', 'random'),
  REVERSED: ('unlike', 'difficult'),
}


class PickedHeads(nn.Module):
  """A shared trunk, and of its outputs the one of each row's task."""

  hidden_sizes: Sequence[int]
  num_tasks: int

  @nn.compact
  def __call__(self, x, owner):
    """Outputs ``(B,)`` and features ``(B, H)``."""
    for size in self.hidden_sizes:
      x = nn.relu(nn.Dense(size)(x))
    outputs = nn.Dense(self.num_tasks)(x)
    return jnp.take_along_axis(outputs, owner[:, None], axis=1)[:, 0], x


def loss_of(network: PickedHeads, kind: Kind, params, batch) -> jax.Array:
  """The mean loss of a batch, as one task."""
  outputs, _ = network.apply(params, batch['x'], batch['owner'])
  return jnp.mean(kind.losses(outputs, batch['label']))[None]


@dataclasses.dataclass(frozen=True)
class Base:
  """What a model says that has seen a little of all tasks.

  Attributes:
    params: its parameters.
    embeddings: mean features of each task's instances, ``(T, H)``.
    margins: of each training row, ``(N,)``.
  """

  params: dict
  embeddings: np.ndarray
  margins: np.ndarray


def make_base(
  tasks: OwnedRows,
  network: PickedHeads,
  key: jax.Array,
  *,
  steps: int,
  batch_size: int,
  learning_rate: float,
) -> Base:
  """Trains the model that all arms begin at, on batches drawn of all tasks."""
  init_key, key = jax.random.split(key)
  train = {name: jnp.asarray(x) for name, x in tasks.train.items()}
  params = network.init(init_key, train['x'][:1], train['owner'][:1])
  tx = optax.adam(learning_rate)

  @jax.jit
  def fit(params, train, key):
    def step(carry, key):
      params, state = carry
      rows = jax.random.randint(key, (batch_size,), 0, len(train['x']))
      batch = {name: x[rows] for name, x in train.items()}
      grads = jax.grad(lambda p: loss_of(network, tasks.kind, p, batch)[0])(
        params
      )
      updates, state = tx.update(grads, state, params)
      return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(key, steps)
    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), keys)
    outputs, features = network.apply(params, train['x'], train['owner'])
    margins = tasks.kind.margins(outputs, train['label'])
    return params, margins, features

  params, margins, features = jax.device_get(fit(params, train, key))
  return Base(
    params,
    np.stack([features[rows].mean(0) for rows in tasks.rows()]),
    margins,
  )


def make_schedule(
  tasks: OwnedRows,
  base: Base,
  arm: str,
  key: jax.Array,
  *,
  batch_size: int,
  rounds: int,
  drop: float,
) -> curricula.Curriculum:
  """The batches of a pass of an arm; the key is of the seed, not of the arm."""
  neighbors, kind = PARTS[arm]
  order_key, rows_key = jax.random.split(key)
  if neighbors == 'random':
    order = jax.random.permutation(order_key, tasks.num_tasks)
  else:
    costs = curricula.task_costs(base.embeddings, neighbors=neighbors)
    order = curricula.task_order(costs, order_key).order
  instances = []
  for task, rows in enumerate(tasks.rows()):
    if kind == 'random':
      shuffle_key = jax.random.fold_in(rows_key, task)
      rows = rows[np.asarray(jax.random.permutation(shuffle_key, len(rows)))]
    else:
      rows = rows[curricula.instance_order(base.margins[rows], drop=drop)]
      rows = rows[::-1] if kind == 'difficult' else rows
    instances.append(rows)
  return curricula.schedule(
    np.asarray(order), instances, batch_size=batch_size, rounds=rounds
  )


def compare_orders(base: Base, key: jax.Array) -> dict[str, float]:
  """The cost of the annealed order beside random ones and the optimum."""
  order_key, key = jax.random.split(key)
  costs = curricula.task_costs(base.embeddings)
  found = float(curricula.task_order(costs, order_key).cost)
  permute = functools.partial(jax.random.permutation, x=len(costs))
  drawn = np.asarray(
    jax.jit(lambda k: curricula.path_cost(costs, jax.vmap(permute)(k)))(
      jax.random.split(key, DRAWN)
    ),
    np.float64,
  )
  best = least_cost(np.asarray(costs, np.float64))
  return {
    'cost': found,
    'optimum': best,
    'z': (found - drawn.mean()) / drawn.std(),
    'gap': (found - best) / (drawn.mean() - best),
  }


def least_cost(costs: np.ndarray) -> float:
  """The least cost of a path through all tasks, by Held and Karp.

  Memory and time grow as 2^T: for up to 16 or so.
  """
  num_tasks = len(costs)
  least = np.full((2**num_tasks, num_tasks), np.inf)
  for task in range(num_tasks):
    least[1 << task, task] = 0
  tasks = np.arange(num_tasks)
  for seen in range(1, 2**num_tasks):
    left = tasks[(seen >> tasks & 1) == 0]
    # By the path that has these seen and ends in the cheapest for each next.
    known = np.min(least[seen, :, None] + costs[:, left], axis=0)
    least[seen | 1 << left, left] = known
  return float(least[-1].min())
