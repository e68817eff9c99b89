"""Which route is the fastest on this machine, by trying."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtljax import _validate
from mtljax._types import Aggregator, Weighting
from mtljax.gradients._pullback import LossFn
from mtljax.training.step import train_step
from mtljax.training.step._turns import take_turns

#: Exact routes by the modes of their backward passes.
WAYS = (
  ('losses', 'unroll'),
  ('jacobian', 'unroll'),
  ('jacobian', 'vmap'),
  ('jacobian', 'map'),
  ('gramian', 'unroll'),
  ('gramian', 'vmap'),
  ('layerwise', 'unroll'),
  ('layerwise', 'vmap'),
  ('layerwise', 'map'),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouteTime:
  """A row of a `Measured`.

  Attributes:
    route: its name.
    mode: how its backward passes run.
    milliseconds: of a step, the median of the rounds.
    bytes: what the compiled step asks for beside its arguments; None where the
      compiler does not say.
    compile_seconds: what tracing and compiling took.
  """

  route: str
  mode: str
  milliseconds: float
  bytes: int | None
  compile_seconds: float

  @property
  def options(self) -> dict[str, str]:
    """What `mtljax.training.make_train_step` takes it by."""
    return {'route': self.route, 'mode': self.mode}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """What `measure` returns; ``str()`` of it is a table.

  Attributes:
    rows: the ways that the method and the loss can take, the fastest first.
  """

  rows: tuple[RouteTime, ...]

  @property
  def fastest(self) -> RouteTime:
    """The first row."""
    return self.rows[0]

  def __str__(self) -> str:
    lines = [f'{"route":<18}{"ms":>10}{"MB":>10}{"compile, s":>12}']
    for row in self.rows:
      memory = '' if row.bytes is None else f'{row.bytes / 1e6:.3g}'
      lines.append(
        f'{row.route + " " + row.mode:<18}{row.milliseconds:>10.3g}'
        f'{memory:>10}{row.compile_seconds:>12.3g}'
      )
    return '\n'.join(lines)


def measure(
  method: Aggregator | Weighting,
  optimizer: optax.GradientTransformation,
  loss_fn: LossFn,
  params: Any,
  batch: Any,
  *,
  key: jax.Array,
  model_state: Any = None,
  rounds: int = 5,
  seconds: float = 0.2,
  **options: Any,
) -> Measured:
  """Compiles and times a training step by every exact route and mode.

  `mtljax.training.estimate` counts and ``route='auto'`` chooses by what is
  counted; this tries, which is the answer where caches and the compiler decide.
  All take turns in an order that changes from round to round. It takes as long
  as the compilations and ``rounds * seconds`` a way. Times differ from run to
  run, so write the choice down rather than measure in each run: exact routes
  give one update up to rounding, and a run that goes on by another route ends
  in other bits.

  Args:
    method: as for `mtljax.training.make_train_step`.
    optimizer: as there.
    loss_fn: as there.
    params: arrays; they are copied.
    batch: arrays, as large as those that will be trained on.
    key: of the state, as for `TrainStep.init`.
    model_state: the model's state, with ``has_state=True``.
    rounds: turns of each way.
    seconds: about how long a turn takes, at least one step.
    **options: of `mtljax.training.make_train_step`, but for ``route`` and
      ``mode``.

  Returns:
    A `Measured`.

  Raises:
    TypeError: an array is traced, so that there is nothing to time; or as
      there.
    ValueError: ``route`` or ``mode`` are among the options; or as there, where
      no route is possible.

  Examples:
    >>> import jax, jax.numpy as jnp, mtljax as mtl, optax
    >>> from mtljax.training import make_train_step, measure
    >>> loss = lambda w, x: jnp.stack([jnp.mean(x @ w), jnp.mean((x @ w) ** 2)])
    >>> method, optimizer = mtl.mgda(2), optax.sgd(0.1)
    >>> found = measure(method, optimizer, loss, jnp.ones(3), jnp.ones((4, 3)),
    ...   key=jax.random.key(0), rounds=1, seconds=0.0)
    >>> sorted({row.route for row in found.rows})
    ['gramian', 'jacobian', 'layerwise']
    >>> train = make_train_step(
    ...   method, optimizer, loss, **found.fastest.options)
  """
  for name in ('route', 'mode'):
    if name in options:
      raise ValueError(
        f'{name}={options[name]!r}: this is what is measured; leave it out.'
      )
  rounds = _validate.integer('rounds', rounds, 1)
  _validate.in_range('seconds', seconds, 0)
  given = (params, batch, model_state, key)
  if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(given)):
    raise TypeError(
      'params, batch or key is traced, and a traced step takes no time; call '
      'measure outside of jax.jit, with arrays.'
    )
  ways, refusals = [], []
  for route, mode in WAYS:
    if ways and ways[0].route == 'losses':
      break  # it reads no gradients: one backward pass by any other too
    try:
      train = train_step.make_train_step(
        method, optimizer, loss_fn, route=route, mode=mode, **options
      )
    except ValueError as error:
      refusals.append(error)
      continue
    ways.append(_Way(route, mode, train, given))
  if not ways:
    raise refusals[0]
  times = take_turns(
    {way: way.run for way in ways}, rounds, lambda way: way.steps(seconds)
  )
  rows = [way.row(statistics.median(ms)) for way, ms in times.items()]
  return Measured(rows=tuple(sorted(rows, key=lambda row: row.milliseconds)))


class _Way:
  """A compiled step, and the state that it goes on from."""

  def __init__(self, route, mode, train, given):
    params, batch, model_state, key = given
    self.route, self.mode = route, mode
    self._batch = jax.tree.map(jnp.asarray, batch)
    self._state = train.init(params, key=key, model_state=model_state)
    start = time.perf_counter()
    self._step = train.step.lower(self._state, self._batch).compile()
    self._compile_seconds = time.perf_counter() - start
    self.run(1)
    start = time.perf_counter()
    self.run(1)
    self._seconds = time.perf_counter() - start

  def run(self, steps: int) -> None:
    """Goes on, and waits for the last step."""
    for _ in range(steps):
      self._state, _ = self._step(self._state, self._batch)
    jax.block_until_ready(self._state)

  def steps(self, seconds: float) -> int:
    """How many there are in that time."""
    return max(1, min(100, int(seconds / self._seconds)))

  def row(self, milliseconds: float) -> RouteTime:
    """The row of the table."""
    memory = self._step.memory_analysis()
    return RouteTime(
      route=self.route,
      mode=self.mode,
      milliseconds=milliseconds,
      bytes=None if memory is None else memory.temp_size_in_bytes,
      compile_seconds=self._compile_seconds,
    )
