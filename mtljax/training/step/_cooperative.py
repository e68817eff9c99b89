"""Turns of sub-models, each given what the others have learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax import _tree
from mtljax.sharpness import _ascent
from mtljax.training.step import _optimizer
from mtljax.training.step._absent import PRESENT
from mtljax.training.step.state import TrainState

#: ``(params_t, batch) -> features``, a tree of arrays.
FeatureFn = Callable[[Any, Any], Any]
#: ``(params_t, features, batch) -> scalar``, of the features of all T.
LossFn = Callable[[Any, list[Any], Any], jax.Array]
Search = Literal['none', 'uniform', 'ascent']
Moved = Literal['features', 'params']
Scale = Literal['absolute', 'relative']
Turns = Literal['cyclic', 'random', 'together']
Warmup = Literal['off', 'ramp', 'joint']
Reduce = Literal['mean', 'max']

CHOICES = {
  'search': ('none', 'uniform', 'ascent'),
  'moved': ('features', 'params'),
  'scale': ('absolute', 'relative'),
  'turns': ('cyclic', 'random', 'together'),
  'warmup': ('off', 'ramp', 'joint'),
  'reduce': ('mean', 'max'),
}


@dataclasses.dataclass(frozen=True)
class SubModels:
  """The functions of T sub-models, and what of the others is moved."""

  feature_fns: tuple[FeatureFn, ...]
  loss_fns: tuple[LossFn, ...]
  moved: Moved = 'features'
  scale: Scale = 'absolute'

  def checked(self, params: Any) -> tuple[Any, ...]:
    """The parameters of T sub-models, or ValueError."""
    count = len(self.loss_fns)
    if not isinstance(params, tuple | list) or len(params) != count:
      size = f' of {len(params)}' if isinstance(params, tuple | list) else ''
      raise ValueError(
        f'params is a {type(params).__name__}{size}, and must be a tuple of '
        f'the parameters of {count} sub-models, one for each of loss_fns.'
      )
    return tuple(params)

  def losses(self, params: Any, batch: Any) -> jax.Array:
    """All losses, ``(T,)``, none of them given anything moved."""
    params = self.checked(params)
    self.loss_dtype(params, batch)
    features = list(self.features(params, batch))
    pairs = zip(self.loss_fns, params, strict=True)
    return jnp.stack([jnp.asarray(fn(p, features, batch)) for fn, p in pairs])

  def loss_dtype(self, params: Any, batch: Any) -> jnp.dtype:
    """The dtype of all losses together, which have to be real scalars."""
    dtypes = []
    for t, fn in enumerate(self.loss_fns):

      def one(params, batch, t=t, fn=fn):
        features = list(self.features(params, batch))
        return jnp.asarray(fn(params[t], features, batch))

      found = jax.eval_shape(one, params, batch)
      if found.shape or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(
          f'loss_fns[{t}] returned {found.dtype}{list(found.shape)}: return '
          'one real number, such as the mean over the batch.'
        )
      dtypes.append(found.dtype)
    return jnp.result_type(*dtypes)

  def check_moved(self, params: Any, features: Any) -> None:
    """Raises TypeError unless what may be moved is of real numbers."""
    given = features if self.moved == 'features' else params
    what = 'feature_fns[{}]' if self.moved == 'features' else 'params[{}]'
    for t, tree in enumerate(given):
      for x in jax.tree.leaves(tree):
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
          raise TypeError(
            f'{what.format(t)} has an array of {jnp.result_type(x)}, which the '
            "search cannot move: make it one of real numbers, or take search='"
            "none'."
          )

  def features(self, params: Sequence[Any], batch: Any) -> tuple[Any, ...]:
    """Those of all, in order."""
    pairs = zip(self.feature_fns, params, strict=True)
    return tuple(fn(p, batch) for fn, p in pairs)

  def others(self, t: int, params: Any, features: Any) -> tuple[Any, ...]:
    """What sub-model t is given of the others, and may be moved."""
    given = features if self.moved == 'features' else params
    return (*given[:t], *given[t + 1 :])

  def loss(self, t: int, own: Any, others: Any, batch: Any) -> jax.Array:
    """Of task t, by its parameters and what is given of the others."""
    if self.moved == 'params':
      fns = (*self.feature_fns[:t], *self.feature_fns[t + 1 :])
      others = [fn(p, batch) for fn, p in zip(fns, others, strict=True)]
    features = [*others[:t], self.feature_fns[t](own, batch), *others[t:]]
    return self.loss_fns[t](own, features, batch)

  def sizes(self, others: Any) -> Any:
    """Of each leaf what a bound of 1 stands for."""
    if self.scale == 'absolute':
      return jax.tree.map(lambda x: 1.0, others)
    return jax.tree.map(
      lambda x: jnp.sqrt(
        jnp.mean(jnp.square(x.astype(_tree.accumulator(x.dtype))))
      ),
      others,
    )

  def draw(self, others: Any, bound: ArrayLike, key: jax.Array) -> Any:
    """The others with uniform noise on every number."""
    leaves, form = jax.tree.flatten(others)
    keys = jax.random.split(key, max(len(leaves), 1))

    def noisy(x, size, key):
      noise = jax.random.uniform(key, x.shape, minval=-1.0, maxval=1.0)
      return x + (bound * size * noise).astype(x.dtype)

    sizes = jax.tree.leaves(self.sizes(others))
    found = [noisy(*x) for x in zip(leaves, sizes, list(keys), strict=False)]
    return jax.tree.unflatten(form, found)

  def ascend(
    self,
    t: int,
    own: Any,
    others: Any,
    batch: Any,
    bound: ArrayLike,
    steps: int,
  ) -> Any:
    """The others moved to where the loss of t is higher, by steps."""
    leaves = jax.tree.leaves(others)
    relative = self.scale == 'relative' and leaves
    radius = bound * _tree.norm(leaves) if relative else bound
    slope = jax.grad(lambda x: self.loss(t, own, x, batch))
    for _ in range(steps if leaves else 0):
      grads = slope(others)
      move = _ascent.with_norm(radius / steps, grads, grads)
      others = jax.tree.map(jnp.add, others, move)
    return others


@dataclasses.dataclass(frozen=True)
class Plan:
  """What `make_cooperative_step` was told, checked."""

  models: SubModels
  optimizers: tuple[optax.GradientTransformationExtraArgs, ...]
  search: Search
  bound: ArrayLike
  num_noises: int
  num_ascents: int
  reduce: Reduce
  turns: Turns
  turn_steps: int | None
  warmup: Warmup
  warmup_steps: int

  @property
  def num_tasks(self) -> int:
    return len(self.optimizers)

  def bound_at(self, step: jax.Array) -> ArrayLike:
    """The bound of a step, with the warm-up."""
    if not self.warmup_steps or self.warmup == 'joint':
      return self.bound
    if self.warmup == 'off':
      return jnp.where(step < self.warmup_steps, 0.0, self.bound)
    return self.bound * jnp.minimum(step / self.warmup_steps, 1.0)


#: Parameters, optimizers' states and features of all sub-models.
Carry = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]


def run_step(
  plan: Plan, state: TrainState, batch: Any
) -> tuple[TrainState, dict[str, jax.Array]]:
  """The turns of a step."""
  models = plan.models
  params = models.checked(state.params)
  dtype = models.loss_dtype(params, batch)
  key = jax.random.fold_in(state.key, state.step)
  before: Carry = params, state.opt_state, models.features(params, batch)
  if plan.search != 'none':
    models.check_moved(params, before[2])

  def turn(t, carry):
    return _turn(plan, t, carry, batch, key, state.step, dtype)

  def in_turn(carry):
    return _run_turns(plan, turn, carry, state.step, key, dtype)

  def jointly(carry):
    return _jointly(plan, carry, batch, dtype)

  if plan.warmup == 'joint' and plan.warmup_steps:
    after, metrics = jax.lax.cond(
      state.step < plan.warmup_steps, jointly, in_turn, before
    )
  else:
    after, metrics = in_turn(before)
  new = dataclasses.replace(
    state, step=state.step + 1, params=after[0], opt_state=after[1]
  )
  return new, metrics


def _turn(
  plan: Plan,
  t: int,
  carry: Carry,
  batch: Any,
  key: jax.Array,
  step: jax.Array,
  dtype: jnp.dtype,
) -> tuple[Carry, jax.Array]:
  """Sub-model t descends its loss, and its features are made anew."""
  models, (params, opt_states, features) = plan.models, carry
  others = models.others(t, params, features)
  bound = plan.bound_at(step)
  if plan.search == 'ascent':
    others = models.ascend(t, params[t], others, batch, bound, plan.num_ascents)

  def objective(own):
    if plan.search != 'uniform':
      return models.loss(t, own, others, batch)
    keys = jax.random.split(jax.random.fold_in(key, t), plan.num_noises)
    losses = jax.vmap(
      lambda k: models.loss(t, own, models.draw(others, bound, k), batch)
    )(keys)
    return jnp.mean(losses) if plan.reduce == 'mean' else jnp.max(losses)

  loss, grads = jax.value_and_grad(objective)(params[t])
  own, opt_state = _descend(plan, t, params[t], opt_states[t], grads, loss)
  carry = (
    _put(params, t, own),
    _put(opt_states, t, opt_state),
    _put(features, t, models.feature_fns[t](own, batch)),
  )
  return carry, loss.astype(dtype)


def _run_turns(
  plan: Plan,
  turn: Callable[[int, Carry], tuple[Carry, jax.Array]],
  start: Carry,
  step: jax.Array,
  key: jax.Array,
  dtype: jnp.dtype,
) -> tuple[Carry, dict[str, jax.Array]]:
  """The turns of a step in their order, and their metrics."""
  count = plan.num_tasks
  branches = [lambda carry, t=t: turn(t, carry) for t in range(count)]
  if plan.turn_steps is not None:
    t = step // plan.turn_steps % count
    carry, loss = jax.lax.switch(t, branches, start)
    present = jnp.arange(count) == t
    return carry, {
      'losses': jnp.where(present, loss, jnp.nan),
      PRESENT: present.astype(dtype),
    }
  if plan.turns == 'random':
    order = jax.random.permutation(jax.random.fold_in(key, count), count)
    carry, found = jax.lax.scan(
      lambda carry, t: jax.lax.switch(t, branches, carry), start, order
    )
    return carry, {'losses': jnp.zeros_like(found).at[order].set(found)}
  carry, losses = start, []
  for t in range(count):
    after, loss = turn(t, start if plan.turns == 'together' else carry)
    losses.append(loss)
    carry = tuple(
      _put(old, t, new[t]) for old, new in zip(carry, after, strict=True)
    )
  return carry, {'losses': jnp.stack(losses)}


def _jointly(
  plan: Plan, carry: Carry, batch: Any, dtype: jnp.dtype
) -> tuple[Carry, dict[str, jax.Array]]:
  """All sub-models descend the sum of the losses, through all features."""
  params, opt_states, _ = carry

  def total(params):
    losses = plan.models.losses(params, batch).astype(dtype)
    return jnp.sum(losses), losses

  (value, losses), grads = jax.value_and_grad(total, has_aux=True)(params)
  found = [
    _descend(plan, t, params[t], opt_states[t], grads[t], value)
    for t in range(plan.num_tasks)
  ]
  params, opt_states = (tuple(x) for x in zip(*found, strict=True))
  metrics = {'losses': losses}
  if plan.turn_steps is not None:
    metrics[PRESENT] = jnp.ones_like(losses)
  return (params, opt_states, plan.models.features(params, batch)), metrics


def _descend(plan, t, params, opt_state, grads, loss):
  """A sub-model's parameters and optimizer after its step."""
  updates, opt_state = _optimizer.update(
    plan.optimizers[t], _tree.conjugate(grads), opt_state, params, value=loss
  )
  return optax.apply_updates(params, updates), opt_state


def _put(old: tuple[Any, ...], t: int, new: Any) -> tuple[Any, ...]:
  return (*old[:t], new, *old[t + 1 :])
