"""A reconstruction of Data-CUBE: curricula over tasks and their instances.

Public are the two levels and what they minimise: the interference between
neighbours in the order of tasks, by simulated annealing; and instances from
easy to difficult by their margin, the most difficult left out. The embedding of
a task, the cooling and the share left out are not, and so are options.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax.data.pipeline import BatchIterator

__all__ = [
  'Curriculum',
  'TaskOrder',
  'contrastive_margins',
  'instance_order',
  'path_cost',
  'schedule',
  'task_costs',
  'task_order',
]

NEIGHBORS = ('alike', 'unlike')


class TaskOrder(NamedTuple):
  """What `task_order` returns.

  Attributes:
    order: a permutation of the tasks, shape ``(T,)``, int32.
    cost: of the path, a scalar.
  """

  order: jax.Array
  cost: jax.Array


def task_costs(
  embeddings: ArrayLike, *, neighbors: Literal['alike', 'unlike'] = 'alike'
) -> jax.Array:
  r"""The cost of having one task beside another.

  .. math:: c_{ij} = \pm (1 - \cos(e_i, e_j))

  ======================= =================================================
  input                   result
  ======================= =================================================
  a zero embedding        cosine 0 beside it
  a NaN                   NaN in its row and column
  ======================= =================================================

  Args:
    embeddings: of a task a row, such as the mean over its instances of what a
      model makes of them, shape ``(T, D)``.
    neighbors: ``'alike'`` takes the plus, so that a path of low cost has alike
      tasks side by side, as in the paper; ``'unlike'`` the minus.

  Returns:
    Shape ``(T, T)``, zeros on the diagonal.

  Raises:
    ValueError: the shape or ``neighbors`` does not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.data import curricula
    >>> print(curricula.task_costs(jnp.array([[1.0, 0.0], [0.0, 2.0]])))
    [[0. 1.]
     [1. 0.]]
  """
  _validate.one_of('neighbors', neighbors, NEIGHBORS)
  embeddings = jnp.asarray(embeddings)
  if embeddings.ndim != 2:
    raise ValueError(
      f'embeddings must have shape (T, D), got {embeddings.shape}.'
    )
  cosines = _cosines(embeddings[:, None], embeddings[None])
  sign = 1 if neighbors == 'alike' else -1
  apart = 1 - jnp.eye(len(embeddings), dtype=cosines.dtype)
  return sign * apart * (1 - cosines)


def path_cost(costs: ArrayLike, order: ArrayLike) -> jax.Array:
  r"""The sum of costs between neighbours of an order.

  .. math:: \sum_{k=1}^{T-1} c_{\pi_k \pi_{k+1}}

  Args:
    costs: shape ``(T, T)``; it need not be symmetric.
    order: a permutation, shape ``(..., T)``.

  Returns:
    Shape ``(...)``; 0 for one task.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.data import curricula
    >>> costs = jnp.array([[0.0, 1.0, 4.0], [1.0, 0.0, 2.0], [4.0, 2.0, 0.0]])
    >>> print(curricula.path_cost(costs, jnp.array([2, 0, 1])))
    5.0
  """
  costs, order = jnp.asarray(costs), jnp.asarray(order)
  return jnp.sum(costs[order[..., :-1], order[..., 1:]], axis=-1)


@functools.partial(jax.jit, static_argnames=('num_steps', 'num_chains'))
def _anneal(costs, key, temperature, final, num_steps, num_chains):
  """The best of several chains."""
  keys = jax.random.split(key, num_chains)
  chain = functools.partial(_chain, costs, temperature, final, num_steps)
  found = jax.vmap(chain)(keys)
  best = jnp.argmin(found.cost)
  return TaskOrder(found.order[best], found.cost[best])


def _chain(costs, temperature, final, num_steps, key):
  num_tasks = len(costs)
  place = jnp.arange(num_tasks, dtype=jnp.int32)
  start_key, key = jax.random.split(key)
  start = jax.random.permutation(start_key, place)
  # Temperatures are in standard deviations of a cost.
  beside = jnp.where(jnp.eye(num_tasks, dtype=bool), jnp.nan, costs)
  largest = jnp.nanmax(jnp.abs(beside))
  spread = largest * jnp.nanstd(beside / jnp.where(largest > 0, largest, 1))
  spread = jnp.where(spread > 0, spread, 1)

  def propose(order, key):
    """A part of the path turned round, or moved on by a place at an end."""
    ends_key, kind_key = jax.random.split(key)
    ends = jax.random.choice(ends_key, num_tasks, (2,), replace=False)
    low, high = jnp.min(ends), jnp.max(ends)
    length = high - low + 1
    moves = jnp.stack(
      [
        low + high - place,
        low + (place - low + 1) % length,
        low + (place - low - 1) % length,
      ]
    )
    inside = (place >= low) & (place <= high)
    move = moves[jax.random.randint(kind_key, (), 0, len(moves))]
    return order[jnp.where(inside, move, place)]

  def step(carry, inputs):
    order, cost, best, least = carry
    key, part = inputs
    move_key, accept_key = jax.random.split(key)
    new = propose(order, move_key)
    new_cost = path_cost(costs, new)
    heat = spread * temperature * (final / temperature) ** part
    chance = jnp.exp(-jnp.maximum(new_cost - cost, 0) / heat)
    accept = jax.random.uniform(accept_key) < chance
    order = jnp.where(accept, new, order)
    cost = jnp.where(accept, new_cost, cost)
    better = cost < least
    best = jnp.where(better, order, best)
    return (order, cost, best, jnp.where(better, cost, least)), None

  cost = path_cost(costs, start)
  parts = jnp.linspace(0, 1, num_steps, dtype=costs.dtype)
  inputs = jax.random.split(key, num_steps), parts
  carry, _ = jax.lax.scan(step, (start, cost, start, cost), inputs)
  return TaskOrder(carry[2], carry[3])


def task_order(
  costs: ArrayLike,
  key: jax.Array,
  *,
  num_steps: int = 4000,
  num_chains: int = 8,
  temperature: float = 1.0,
  final: float = 0.05,
) -> TaskOrder:
  r"""An order of tasks whose neighbours cost little, by simulated annealing.

  It looks for the path through all tasks of least `path_cost`. A step turns a
  part of the path round, or moves a task from one of its ends to the other, and
  is taken with probability

  .. math:: \min(1, e^{-\Delta / (\sigma \tau_k)}), \qquad
     \tau_k = \tau_0 (\tau_{end} / \tau_0)^{k / (K - 1)}

  with :math:`\sigma` the standard deviation of the costs, so that their unit
  does not matter. Each chain begins at a random order and is one ``lax.scan``;
  the best order that any has met is returned. The cost of a step is O(T). It
  is no proof that there is no better one.

  ======================= ==================================================
  input                   result
  ======================= ==================================================
  T = 1                   that task, cost 0
  all costs equal         any order
  a NaN or an infinity    ValueError; where traced, any order and its cost
  ======================= ==================================================

  Args:
    costs: of neighbours, shape ``(T, T)``, such as `task_costs`; its diagonal
      is not looked at.
    key: a random key.
    num_steps: K, of a chain.
    num_chains: of which the best is taken.
    temperature: :math:`\tau_0`.
    final: :math:`\tau_{end}`, at most ``temperature``.

  Returns:
    The `TaskOrder`.

  Raises:
    ValueError: the costs are no square of finite numbers, or an option is out
      of range.

  Example:
    Tasks on a line, found in order:

    >>> import jax, jax.numpy as jnp
    >>> from mtljax.data import curricula
    >>> place = jnp.array([3.0, 0.0, 1.0, 2.0])
    >>> costs = jnp.abs(place[:, None] - place[None])
    >>> found = curricula.task_order(costs, jax.random.key(0))
    >>> print(found.cost, place[found.order].tolist() in ([0, 1, 2, 3],
    ...                                                   [3, 2, 1, 0]))
    3.0 True

  References:
    Min et al., `Data-CUBE: Data Curriculum for Instruction-based Sentence
    Representation Learning <https://arxiv.org/abs/2401.03563>`_, 2024;
    annealing, Kirkpatrick et al., `Optimization by Simulated Annealing
    <https://doi.org/10.1126/science.220.4598.671>`_, 1983.
  """
  costs = jnp.asarray(costs)
  if not jnp.issubdtype(costs.dtype, jnp.floating):
    costs = costs.astype(jnp.promote_types(costs.dtype, jnp.float32))
  if costs.ndim != 2 or costs.shape[0] != costs.shape[1] or not len(costs):
    raise ValueError(f'costs must have shape (T, T), got {costs.shape}.')
  finite = isinstance(costs, jax.core.Tracer) or bool(jnp.isfinite(costs).all())
  if not finite:
    raise ValueError('costs must be finite: give a forbidden pair a high cost.')
  num_steps = _validate.integer('num_steps', num_steps, 1)
  num_chains = _validate.integer('num_chains', num_chains, 1)
  _validate.in_range('temperature', temperature, 0, open_low=True)
  _validate.in_range('final', final, 0, temperature, open_low=True)
  if len(costs) == 1:
    return TaskOrder(jnp.zeros(1, jnp.int32), jnp.zeros((), costs.dtype))
  return _anneal(costs, key, temperature, final, num_steps, num_chains)


def contrastive_margins(
  anchors: ArrayLike, positives: ArrayLike, negatives: ArrayLike
) -> jax.Array:
  r"""How well a model tells positives from negatives; low is difficult.

  .. math:: m_n = \cos(a_n, p_n) - \cos(a_n, q_n)

  Args:
    anchors: embeddings, shape ``(N, D)``.
    positives: what belongs to them, of the same shape.
    negatives: what does not.

  Returns:
    Shape ``(N,)``, in [-2, 2]; a zero embedding has cosine 0.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.data import curricula
    >>> one, other = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
    >>> print(curricula.contrastive_margins(one, one, other))
    [1.]
  """
  anchors, positives, negatives = map(
    jnp.asarray, (anchors, positives, negatives)
  )
  return _cosines(anchors, positives) - _cosines(anchors, negatives)


def instance_order(margins: ArrayLike, *, drop: float = 0.1) -> np.ndarray:
  """Indices from easy to difficult, the most difficult left out.

  ======================= ==================================================
  input                   result
  ======================= ==================================================
  equal margins           in the order given
  ``drop`` of N           the floor of their product is left out, never all
  a NaN                   ValueError
  no instances            none
  ======================= ==================================================

  Args:
    margins: higher is easier: `contrastive_margins`, or the logit of the right
      class less the largest other; shape ``(N,)``.
    drop: the share left out, at least 0 and below 1: what no model tells apart
      may be labelled wrong.

  Returns:
    Shape ``(N - floor(drop N),)``, ints; computed on the host.

  Raises:
    ValueError: the margins are no vector, one is NaN, or ``drop`` is out of
      range.

  Example:
    >>> from mtljax.data import curricula
    >>> curricula.instance_order([0.1, 0.9, -1.0, 0.5], drop=0.25)
    array([1, 3, 0])
  """
  _validate.in_range('drop', drop, 0, 1, open_high=True)
  values = np.asarray(margins)
  if values.ndim != 1:
    raise ValueError(f'margins must have shape (N,), got {values.shape}.')
  if np.isnan(values).any():
    raise ValueError('margins must not be NaN.')
  # Products such as 0.29 * 100 are a little below the number meant.
  left_out = int(np.floor(drop * len(values) + 1e-9))
  return np.argsort(-values, kind='stable')[: len(values) - left_out]


@dataclasses.dataclass(frozen=True, eq=False)
class Curriculum:
  """What `schedule` returns: every batch of a pass, and a sampler of grain.

  Record by record it is a ``Sampler`` for a ``grain.DataLoader`` (with the
  operation ``grain.transforms.Batch(batch_size)`` and
  ``shard_options=grain.sharding.NoSharding()``), which reads what does not fit
  in memory; its state resumes exactly. `batches` indexes arrays.

  Attributes:
    indices: of the examples of each batch, shape ``(S, batch_size)``.
    tasks: of each batch, shape ``(S,)``.
  """

  indices: np.ndarray
  tasks: np.ndarray

  def __len__(self) -> int:
    """Records of a pass."""
    return self.indices.size

  def __getitem__(self, index: int) -> grain.RecordMetadata:
    """Which example comes at a place."""
    if not 0 <= index < len(self):
      raise IndexError(f'index={index} must be from 0 to {len(self) - 1}.')
    key = int(self.indices.reshape(-1)[index])
    return grain.RecordMetadata(index=index, record_key=key)

  def __repr__(self) -> str:
    """What a saved state is known again by."""
    count, size = self.indices.shape
    return f'Curriculum({count} batches of {size}, {self.digest})'

  @functools.cached_property
  def digest(self) -> str:
    """Of the order."""
    parts = (np.asarray(x, np.int64) for x in (self.indices, self.tasks))
    return hashlib.sha256(b''.join(x.tobytes() for x in parts)).hexdigest()[:16]

  def batches(
    self, arrays: Mapping[str, np.ndarray], *, num_epochs: int | None = 1
  ) -> BatchIterator:
    """The batches of arrays held in memory, in order.

    Args:
      arrays: arrays with an example a row, by name; none called ``task``.
      num_epochs: passes; None never ends.

    Returns:
      An iterator over dicts of arrays, with ``task``, an int32 scalar; its
      state is JSON, and that of another order is refused.

    Raises:
      ValueError: the arrays have too few rows, or one is called ``task``.
    """
    if num_epochs is not None:
      num_epochs = _validate.integer('num_epochs', num_epochs, 1)
    if 'task' in arrays:
      raise ValueError("an array is called 'task', the name of a batch's task.")
    needed = int(self.indices.max()) + 1
    for name, array in arrays.items():
      if len(array) < needed:
        raise ValueError(
          f'arrays: {name!r} has {len(array)} rows, the schedule needs '
          f'{needed}.'
        )

    def read(place):
      rows = self.indices[place]
      found = {name: array[rows] for name, array in arrays.items()}
      return found | {'task': np.asarray(self.tasks[place], np.int32)}

    places = grain.MapDataset.range(len(self.indices)).repeat(num_epochs)
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    identity: dict[str, Any] = {
      'order': self.digest,
      'num_epochs': num_epochs,
    }
    return BatchIterator(places.map(read).to_iter_dataset(options), identity)


def schedule(
  order: ArrayLike,
  instances: Sequence[ArrayLike],
  *,
  batch_size: int,
  rounds: int = 1,
) -> Curriculum:
  """The batches of a curriculum: of one task each, in the order of the tasks.

  Within a task they keep the order of its instances; what does not fill a batch
  at its end is left out. Whether the paper finishes a task before the next is
  not public: with R ``rounds`` each task's batches are cut in R parts, as
  ``numpy.array_split`` does, and all tasks' first parts come before the second.

  Args:
    order: of the tasks, such as that of `task_order`, shape ``(T,)``.
    instances: for each task the indices of its examples, such as some of
      `instance_order`.
    batch_size: examples in a batch.
    rounds: R, at least 1.

  Returns:
    The `Curriculum`.

  Raises:
    ValueError: the order is no permutation of the tasks, or a task does not
      fill a batch.

  Example:
    >>> import numpy as np
    >>> from mtljax.data import curricula
    >>> found = curricula.schedule([1, 0], [[3, 1, 2, 0], [5, 4]], batch_size=2)
    >>> found.tasks.tolist(), found.indices.tolist()
    ([1, 0, 0], [[5, 4], [3, 1], [2, 0]])
    >>> batches = found.batches({'x': 10 * np.arange(6)})
    >>> next(batches)['x'].tolist(), int(next(batches)['task'])
    ([50, 40], 0)
  """
  batch_size = _validate.integer('batch_size', batch_size, 1)
  rounds = _validate.integer('rounds', rounds, 1)
  tasks = np.asarray(order)
  if tasks.ndim != 1 or sorted(tasks.tolist()) != list(range(len(instances))):
    raise ValueError(
      f'order={tasks.tolist()} must be a permutation of the {len(instances)} '
      'tasks that instances has.'
    )
  parts = []
  for task, rows in enumerate(instances):
    rows = np.asarray(rows)
    count = len(rows) // batch_size
    if not count:
      raise ValueError(
        f'instances[{task}] has {len(rows)} examples, batch_size={batch_size} '
        'needs as many at least.'
      )
    whole = rows[: count * batch_size].reshape(count, batch_size)
    parts.append(np.array_split(whole, rounds))
  pairs = [(task, parts[task][r]) for r in range(rounds) for task in tasks]
  return Curriculum(
    np.concatenate([rows for _, rows in pairs]),
    np.concatenate([np.full(len(rows), task) for task, rows in pairs]),
  )


def _cosines(one: jax.Array, other: jax.Array) -> jax.Array:
  """Along the last axis; 0 beside a zero."""
  norms = jnp.linalg.norm(one, axis=-1) * jnp.linalg.norm(other, axis=-1)
  products = jnp.sum(one * other, axis=-1)
  return products / jnp.where(norms == 0, 1, norms)
