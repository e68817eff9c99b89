r"""A reconstruction of MCAL: sub-models trained in turn, in flat minima.

Public are the abstracts of multi-task cooperative learning (MCAL, MT-CooL):
each task's sub-model is updated in turn, given what the others have learned,
and looks for a minimum that is flat with respect to their features:

.. math:: u_t \leftarrow \arg\min_u \;
   E_{\delta \sim U[-b, b]} \; L_t(u;\, f_{-t} + \delta)
   \quad \text{or} \quad
   \min_u \max_{\lVert \delta \rVert \le b} L_t(u;\, f_{-t} + \delta)

The loops, the constants and what exactly is moved are not public, and stand
here as options.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax.training.step import _begin, _optimizer
from mtljax.training.step._cooperative import (
  CHOICES,
  FeatureFn,
  LossFn,
  Moved,
  Plan,
  Reduce,
  Scale,
  Search,
  SubModels,
  Turns,
  Warmup,
  run_step,
)
from mtljax.training.step.train_step import TrainStep

__all__ = ['joint_losses', 'loss_changes', 'make_cooperative_step']


def joint_losses(
  feature_fns: Sequence[FeatureFn], loss_fns: Sequence[LossFn]
) -> Callable[[Any, Any], jax.Array]:
  """The losses of sub-models as one function, to train them jointly.

  What `make_cooperative_step` is compared with: a gradient of their sum goes
  through the features into the other sub-models.

  Args:
    feature_fns: see `make_cooperative_step`.
    loss_fns: see there.

  Returns:
    ``loss_fn(params, batch) -> (T,)`` for `mtljax.training.make_train_step`,
    of the tuple of the T sub-models' parameters.

  Raises:
    TypeError: as `make_cooperative_step`.
    ValueError: likewise.

  Examples:
    >>> import jax.numpy as jnp
    >>> from mtljax.training import cooperative
    >>> scaled = lambda p, batch: p * batch
    >>> loss = lambda p, features, batch: (features[0] + features[1] - 1) ** 2
    >>> loss_fn = cooperative.joint_losses([scaled, scaled], [loss, loss])
    >>> print(loss_fn((1.0, 2.0), 2.0))
    [25. 25.]
  """
  return _sub_models(feature_fns, loss_fns).losses


def loss_changes(
  feature_fns: Sequence[FeatureFn],
  loss_fns: Sequence[LossFn],
  params: Sequence[Any],
  batch: Any,
  key: jax.Array,
  *,
  bound: ArrayLike,
  num_noises: int = 8,
  moved: Moved = 'params',
  scale: Scale = 'relative',
) -> jax.Array:
  r"""How much each loss rises when the other sub-models are moved.

  .. math:: E_\delta \left[ L_t(u_t; u_{-t} + \delta) \right] -
     L_t(u_t; u_{-t}), \quad \delta \sim U[-b, b]

  Args:
    feature_fns: see `make_cooperative_step`.
    loss_fns: see there.
    params: of the T sub-models.
    batch: what the losses are taken of.
    key: of the noise.
    bound: b, at least 0.
    num_noises: how many are drawn.
    moved: the ``'params'`` of the others, or their ``'features'``.
    scale: in which units, see there.

  Returns:
    The mean change of each loss, ``(T,)``; zeros of a single sub-model.

  Raises:
    TypeError: as `make_cooperative_step`.
    ValueError: likewise.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from mtljax.training import cooperative
    >>> given = lambda p, batch: p
    >>> losses = [lambda p, f, batch: 3 * f[1], lambda p, f, batch: f[1] ** 2]
    >>> changes = cooperative.loss_changes(
    ...   [given, given], losses, (jnp.ones(()), jnp.ones(())), None,
    ...   jax.random.key(0), bound=0.1)
    >>> bool(abs(changes[0]) <= 0.3), float(changes[1])
    (True, 0.0)
  """
  _validate.one_of('moved', moved, CHOICES['moved'])
  _validate.one_of('scale', scale, CHOICES['scale'])
  _validate.in_range('bound', bound, 0)
  num_noises = _validate.integer('num_noises', num_noises, 1)
  models = _sub_models(feature_fns, loss_fns, moved, scale)
  params = models.checked(params)
  features = models.features(params, batch)
  dtype = models.loss_dtype(params, batch)
  models.check_moved(params, features)

  def change(t):
    others = models.others(t, params, features)
    loss = lambda x: models.loss(t, params[t], x, batch)
    keys = jax.random.split(jax.random.fold_in(key, t), num_noises)
    moved = jax.vmap(lambda k: loss(models.draw(others, bound, k)))(keys)
    return jnp.mean(moved - loss(others)).astype(dtype)

  return jnp.stack([change(t) for t in range(len(params))])


def make_cooperative_step(
  feature_fns: Sequence[FeatureFn],
  loss_fns: Sequence[LossFn],
  optimizer: optax.GradientTransformation
  | Sequence[optax.GradientTransformation],
  *,
  search: Search = 'uniform',
  bound: ArrayLike = 0.1,
  num_noises: int = 1,
  reduce: Reduce = 'mean',
  num_ascents: int = 1,
  moved: Moved = 'features',
  scale: Scale = 'absolute',
  turns: Turns = 'cyclic',
  turn_steps: int | None = None,
  warmup: Warmup = 'off',
  warmup_steps: int = 0,
) -> TrainStep:
  r"""Builds a step that updates sub-models in turn, in search of flat minima.

  T sub-models, one a task or modality, have parameters of their own: features
  that all may read, and a loss that reads the features of all. When it is its
  turn, a sub-model descends its loss with respect to its own parameters only;
  the features of the others are constants, those with which they left their
  last turn, and are moved by noise or by ascent first.

  All turns of a step are one jitted program, on one batch. The state is a
  `mtljax.training.TrainState` whose ``params`` and ``opt_state`` are tuples of
  T, so `mtljax.training.fit`, its checkpoints and `make_sweep` (over ``bound``,
  say) take it. Sub-models keep no state besides parameters.

  ============== =============================== =============================
  open reading   option                          values
  ============== =============================== =============================
  the search     ``search``                      ``'uniform'`` noise in [-b, b],
                                                 ``'ascent'`` to a distance b,
                                                 ``'none'``
  what is moved  ``moved``                       the ``'features'`` of the
                                                 others, or their ``'params'``
  units of b     ``scale``                       ``'absolute'``, or
                                                 ``'relative'``: of each array's
                                                 root mean square; of ascent, of
                                                 the norm of all
  of j noises    ``reduce``                      the ``'mean'`` loss, or the
                                                 ``'max'``
  the order      ``turns``                       ``'cyclic'``; ``'random'``,
                                                 drawn each step;
                                                 ``'together'``, all given the
                                                 old ones: a control
  a turn         ``turn_steps``                  None: all have a turn in a
                                                 step; k: a turn lasts k steps
  warm-up        ``warmup``                      ``'off'``: without search,
                                                 ``'ramp'``: b grows from 0,
                                                 ``'joint'``: the sum of the
                                                 losses is descended by all
  ============== =============================== =============================

  The metrics have ``losses`` ``(T,)``, which were descended: each at the turn
  of its task, moved. With ``turn_steps`` those of the others are NaN, and
  ``present`` marks the one.

  Args:
    feature_fns: T functions ``(params_t, batch) -> features``, a tree of
      arrays.
    loss_fns: T functions ``(params_t, features, batch) -> scalar``, where
      ``features`` is the list of those of all T.
    optimizer: plain optax, one for all or T of them; each sub-model has a state
      of its own. They get ``value``, its loss, if they take that.
    search: see above.
    bound: b, at least 0; at 0 there is no search.
    num_noises: j, for ``'uniform'``; a step takes j times the losses' work.
    reduce: of the j losses, see above.
    num_ascents: for ``'ascent'``, steps of length b over that number.
    moved: see above.
    scale: see above.
    turns: see above.
    turn_steps: see above; with ``turns='cyclic'``.
    warmup: see above.
    warmup_steps: how many steps that lasts.

  Returns:
    A `mtljax.training.TrainStep`; ``init`` takes the sequence of the T
    sub-models' parameters. ``route`` is ``'cooperative'``.

  Raises:
    TypeError: an optimizer is none, or, when traced, what is moved is not of
      real numbers.
    ValueError: an argument is not valid, or has no effect with the others; or,
      when traced, there are not T parameters, or a loss is not a scalar.

  Examples:
    >>> import jax, jax.numpy as jnp, optax
    >>> from mtljax.training import cooperative
    >>> given = lambda p, batch: p
    >>> toward = lambda p, features, batch: (p - batch - features[1]) ** 2
    >>> half = lambda p, features, batch: (p - features[0] / 2) ** 2
    >>> init, step, route = cooperative.make_cooperative_step(
    ...   [given, given], [toward, half], optax.sgd(0.5), search='none')
    >>> state = init((jnp.array(0.0), jnp.array(0.0)), key=jax.random.key(0))
    >>> state, metrics = step(state, 1.0)  # the second sees the first's new one
    >>> print(*state.params, metrics['losses'])
    1.0 0.5 [1.   0.25]

  ============================ ============================================
  case                         result
  ============================ ============================================
  one sub-model                plain training: there is nothing to move
  ``bound=0``                  the program of ``search='none'``
  a slope of zero, ``ascent``  nothing is moved
  a loss that is not finite    its sub-model is no longer finite, and the
                               others from then on
  ============================ ============================================

  References:
    Wu et al., `Multi-Task Cooperative Learning via Searching for Flat Minima
    <https://arxiv.org/abs/2309.12090>`_, 2023
  """
  given = {
    'search': search,
    'reduce': reduce,
    'moved': moved,
    'scale': scale,
    'turns': turns,
    'warmup': warmup,
  }
  for name, value in given.items():
    _validate.one_of(name, value, CHOICES[name])
  _validate.refuse_narrow(bound=bound)
  _validate.in_range('bound', bound, 0)
  num_noises = _validate.integer('num_noises', num_noises, 1)
  num_ascents = _validate.integer('num_ascents', num_ascents, 1)
  warmup_steps = _validate.integer('warmup_steps', warmup_steps, 0)
  if turn_steps is not None:
    turn_steps = _validate.integer('turn_steps', turn_steps, 1)
  wanted = {
    'num_noises': (num_noises == 1, 'search', search, 'uniform'),
    'reduce': (reduce == 'mean', 'search', search, 'uniform'),
    'num_ascents': (num_ascents == 1, 'search', search, 'ascent'),
    'turn_steps': (turn_steps is None, 'turns', turns, 'cyclic'),
  }
  given |= {
    'num_noises': num_noises,
    'num_ascents': num_ascents,
    'turn_steps': turn_steps,
  }
  for name, (unset, other, value, needed) in wanted.items():
    if not unset and value != needed:
      raise ValueError(
        f'{name}={given[name]!r} has no effect with {other}={value!r}: leave '
        f'it out, or take {other}={needed!r}.'
      )
  models = _sub_models(feature_fns, loss_fns, moved, scale)
  count = len(models.loss_fns)
  still = isinstance(bound, int | float) and bound == 0
  plan = Plan(
    models=models,
    optimizers=_optimizers(optimizer, count),
    search='none' if still or count == 1 else search,
    bound=bound,
    num_noises=num_noises,
    num_ascents=num_ascents,
    reduce=reduce,
    turns=turns,
    turn_steps=turn_steps,
    warmup=warmup,
    warmup_steps=warmup_steps,
  )

  def init(params, *, key, model_state=None):
    _begin.check_no_model_state(
      model_state, 'sub-models keep no state besides parameters'
    )

    def init_optimizers(params):
      pairs = zip(plan.optimizers, params, strict=True)
      return tuple(_optimizer.init(tx, p) for tx, p in pairs)

    return _begin.first_state(init_optimizers, models.checked(params), (), key)

  def step(state, batch):
    _begin.check_state(state)
    return run_step(plan, state, batch)

  return TrainStep(init, jax.jit(step, donate_argnums=0), 'cooperative')


def _sub_models(
  feature_fns: Sequence[FeatureFn],
  loss_fns: Sequence[LossFn],
  moved: Moved = 'features',
  scale: Scale = 'absolute',
) -> SubModels:
  """The functions of all sub-models, as many of the one as of the other."""
  for name, fns in (('feature_fns', feature_fns), ('loss_fns', loss_fns)):
    if not isinstance(fns, Sequence) or not all(map(callable, fns)):
      raise TypeError(
        f'{name}={fns!r} must be a sequence of functions, one a sub-model.'
      )
  if len(feature_fns) != len(loss_fns) or not loss_fns:
    raise ValueError(
      f'there are {len(feature_fns)} feature_fns and {len(loss_fns)} loss_fns: '
      'give as many of the one as of the other, at least one.'
    )
  return SubModels(tuple(feature_fns), tuple(loss_fns), moved, scale)


def _optimizers(
  optimizer: Any, count: int
) -> tuple[optax.GradientTransformationExtraArgs, ...]:
  """One for each sub-model."""
  if isinstance(optimizer, optax.GradientTransformation | optax.MultiSteps):
    optimizer = [optimizer] * count
  if not isinstance(optimizer, tuple | list) or len(optimizer) != count:
    raise TypeError(
      f'optimizer={optimizer!r} must be an optax transformation such as '
      f'optax.adam(1e-3), or a list of {count}, one a sub-model.'
    )
  return tuple(_optimizer.checked(x) for x in optimizer)
