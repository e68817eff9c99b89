"""How flat each task's loss is around the parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _labels, _tree, _validate
from mtljax.gradients import _pullback, task_grad_fn, value_and_task_grads
from mtljax.gradients._passes import Mode, make_passes, map_tasks
from mtljax.sharpness import _ascent, _common

Direction = Literal['ascent', 'random']
Norms = Literal['separate', 'joint']


def task_sharpness(
  fun: _pullback.LossFn,
  params: Any,
  *args: Any,
  labels: _labels.Labels | None = None,
  radii: Sequence[float] | ArrayLike = (0.01, 0.05),
  direction: Direction = 'ascent',
  norms: Norms = 'separate',
  key: jax.Array | None = None,
  num_samples: int = 8,
  has_aux: bool = False,
  mode: Mode = 'auto',
) -> jax.Array:
  r"""How much each task's loss rises near the parameters.

  .. math:: S_t(\rho) = L_t(\theta + \epsilon_t) - L_t(\theta)

  Each task is perturbed by itself, over the shared parameters and its own, as
  in F-MTL. With ``direction='ascent'`` the perturbation is one normalised step
  along the gradient, the first-order worst case:

  .. math::
     \epsilon_t = \Big( \rho \frac{g^t_{sh}}{\lVert g^t_{sh} \rVert},\;
     \rho \frac{g^t_{ns}}{\lVert g^t_{ns} \rVert} \Big)
     \quad \text{or, joint,} \quad
     \epsilon_t = \rho \frac{g^t}{\lVert g^t \rVert}

  With ``'random'`` a Gaussian vector takes the gradient's place, and the mean
  over ``num_samples`` of them is returned; all radii lie on the same rays.

  A difference of losses: in float32 it is known to about 1e-7 of the loss, so
  a sharpness below that says nothing. The radius is in the parameters' units,
  and layers that are followed by normalisation can be scaled without changing
  the function: compare networks of one architecture and training only.

  Costs, ascent: 1 + R T forward and T backward passes, R the number of radii;
  random: 1 + R T ``num_samples`` forward passes. The staged form evaluates
  only the head asked for. Call it inside ``jax.jit``.

  ========================= ================================================
  input                     result
  ========================= ================================================
  a zero gradient           0 by ascent, to rounding
  radius 0                  0, to rounding
  a minimum, or saddle      ascent sees no direction; use ``'random'``
  non-finite loss           NaN for that task
  parameters in bfloat16    a perturbation shorter than their spacing is
                            rounded away
  ========================= ================================================

  Args:
    fun: the losses, in any form of `mtljax.value_and_task_grads`.
    params: the parameters.
    *args: the other arguments of ``fun``: a batch, say.
    labels: which task owns which parameter, see `mtljax.label_params`; None:
      all parameters are shared.
    radii: lengths of the perturbations, at least 0.
    direction: ``'ascent'`` or ``'random'``.
    norms: ``'separate'``: the shared part and the task's own have length rho
      each; ``'joint'``: both together have length rho.
    key: random key, for ``'random'``.
    num_samples: how many random directions.
    has_aux: whether the functions return ``(loss, aux)``.
    mode: how the points are evaluated: ``'unroll'`` one after the other in the
      program, ``'vmap'`` together, ``'map'`` in a loop, which compiles fastest.

  Returns:
    Shape ``(R, T)``, float32 or wider.

  Raises:
    ValueError: an option is unknown, a radius is negative, or the key is
      missing.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.diagnostics import task_sharpness
    >>> def task_losses(w):
    ...   return jnp.stack([w[0] ** 2, 10 * w[1] ** 2])
    >>> print(task_sharpness(task_losses, jnp.ones(2), radii=[0.0, 0.5]))
    [[ 0.    0.  ]
     [ 1.25 12.5 ]]

  References:
    Foret et al., `Sharpness-Aware Minimization for Efficiently Improving
    Generalization <https://arxiv.org/abs/2010.01412>`_, 2021; per task, Phan
    et al., `Improving Multi-task Learning via Seeking Task-based Flat Regions
    <https://arxiv.org/abs/2211.13723>`_, 2022. On what the radius can not
    compare: Dinh et al., `Sharp Minima Can Generalize For Deep Nets
    <https://arxiv.org/abs/1703.04933>`_, 2017.
  """
  _validate.one_of('direction', direction, ('ascent', 'random'))
  _validate.one_of('norms', norms, ('separate', 'joint'))
  passes = make_passes(mode)
  _validate.in_range('num_samples', num_samples, 1)
  if direction == 'random' and key is None:
    raise ValueError("key=None, but direction='random' draws: pass a key.")
  if isinstance(radii, Sequence):
    for radius in radii:
      _validate.in_range('radii', radius, 0)
  radii = jnp.asarray(radii, float)
  if radii.ndim != 1 or radii.size == 0:
    raise ValueError(
      f'radii must be a list of numbers, got shape {radii.shape}.'
    )
  view = _view(fun, params, args, labels, has_aux)

  def rises(t):
    def along(ray):
      return map_tasks(
        lambda r: view.rise(ray, r, t, norms), radii, len(radii), passes
      )

    if direction == 'ascent':
      return along(view.gradient(t))
    keys = jax.random.split(jax.random.fold_in(key, t), num_samples)
    return jnp.mean(
      map_tasks(lambda k: along(view.draw(k, t)), keys, num_samples, passes),
      axis=0,
    )

  return jnp.stack([rises(t) for t in range(view.losses.shape[0])], axis=1)


def flat_gradient_norm(
  fun: _pullback.LossFn,
  params: Any,
  *args: Any,
  labels: _labels.Labels | None = None,
  rho: ArrayLike = 0.05,
  norms: Norms = 'separate',
  has_aux: bool = False,
) -> jax.Array:
  r"""The length of each task's flat gradient on the shared parameters.

  .. math::
     \lVert g^{t,flat}_{sh} \rVert =
     \lVert g^t_{sh}(\theta + \epsilon_t) - g^t_{sh}(\theta) \rVert

  with the ascent perturbation :math:`\epsilon_t` of `task_sharpness`, on the
  shared parameters and on the task's own. For a small radius it is
  :math:`\lVert \nabla (\rho \lVert g^t_{sh} \rVert + \rho \lVert g^t_{ns}
  \rVert) \rVert`: how steep the gradient's own length is. Scales with the
  task's loss. Costs 1 + T forward and 2T backward passes; call it inside
  ``jax.jit``. A task with a zero gradient has norm 0.

  Args:
    fun: the losses, in any form of `mtljax.value_and_task_grads`.
    params: the parameters.
    *args: the other arguments of ``fun``.
    labels: see `mtljax.label_params`; None: all parameters are shared.
    rho: length of the perturbation, at least 0.
    norms: as for `task_sharpness`.
    has_aux: whether the functions return ``(loss, aux)``.

  Returns:
    Shape ``(T,)``, float32 or wider.

  Raises:
    ValueError: the option is unknown, or rho is negative.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.diagnostics import flat_gradient_norm
    >>> def task_losses(w):
    ...   return jnp.stack([w[0] ** 2, 10 * w[1] ** 2])
    >>> print(flat_gradient_norm(task_losses, jnp.ones(2), rho=0.5))
    [ 1. 10.]

  References:
    Phan et al., `Improving Multi-task Learning via Seeking Task-based Flat
    Regions <https://arxiv.org/abs/2211.13723>`_, 2022.
  """
  _validate.one_of('norms', norms, ('separate', 'joint'))
  _validate.in_range('rho', rho, 0)
  view = _view(fun, params, args, labels, has_aux)
  lengths = []
  for t in range(view.losses.shape[0]):
    gradient = view.gradient(t)
    moved = view.grad_fn(view.move(gradient, rho, t, norms), t)[1]
    shared, _ = view.split.split(jax.tree.leaves(moved))
    flat = [m - g for m, g in zip(shared, gradient[0], strict=True)]
    lengths.append(_tree.norm(flat))
  return jnp.stack(lengths)


class _Ray(NamedTuple):
  """A direction of one task."""

  shared: list[jax.Array]
  own: list[jax.Array]  # its part of each leaf that it owns


@dataclasses.dataclass(frozen=True)
class _View:
  """A multi-task loss at one point, and how to step away task by task."""

  params: Any
  losses: jax.Array
  grads: Any
  split: _pullback.Split
  grad_fn: Callable[[Any, int], tuple[jax.Array, Any]]

  def own_labels(self) -> list[_labels.Label]:
    return [x for x in self.split.labels if x != _labels.SHARED]

  def own_part(self, own: list[jax.Array], t: int) -> list[jax.Array]:
    """What belongs to task t of the leaves that are not shared."""
    parts = [
      _common.own_slice(x, label, t)
      for x, label in zip(own, self.own_labels(), strict=True)
    ]
    return [part for part in parts if part is not None]

  def gradient(self, t: int) -> _Ray:
    """The direction of task t's gradient."""
    shared, own = self.split.split(jax.tree.leaves(self.grads))
    return _Ray([x[t] for x in shared], self.own_part(own, t))

  def draw(self, key: jax.Array, t: int) -> _Ray:
    """A Gaussian direction for task t."""
    shared, own = self.split.split(jax.tree.leaves(self.params))
    return normal_like(key, _Ray(shared, self.own_part(own, t)))

  def move(self, ray: _Ray, rho: ArrayLike, t: int, norms: Norms) -> Any:
    """The parameters moved by rho along a direction of task t."""
    ascent = _ascent.normalized_ascent(rho)
    if norms == 'joint':
      step = _ascent.perturbation(ascent, ray, None)
    else:
      step = _Ray(*(_ascent.perturbation(ascent, part, None) for part in ray))
    shared, own = self.split.split(jax.tree.leaves(self.params))
    steps, moved = iter(step.own), []
    for p, label in zip(own, self.own_labels(), strict=True):
      part = _common.own_slice(p, label, t)
      if part is not None:
        part = _common.add(part, next(steps))
        p = _common.put_slice(p, label, t, part)
      moved.append(p)
    return self.split.merge(_common.add(shared, step.shared), moved)

  def rise(self, ray: _Ray, rho: ArrayLike, t: int, norms: Norms) -> jax.Array:
    """By how much the loss of task t is higher there."""
    # The gradient that comes with the loss is unused: removed under jit.
    loss = self.grad_fn(self.move(ray, rho, t, norms), t)[0]
    return loss.astype(self.losses.dtype) - self.losses[t]


def _view(fun, params, args, labels, has_aux) -> _View:
  value_and_grads = value_and_task_grads(fun, labels=labels, has_aux=has_aux)
  value, grads = value_and_grads(params, *args)
  losses = value[0] if has_aux else value
  flat = _labels.flatten_labels(labels, params, losses.shape[0])
  return _View(
    params=params,
    losses=losses.astype(_tree.accumulator(losses.dtype)),
    grads=grads,
    split=_pullback.Split(jax.tree.structure(params), tuple(flat)),
    grad_fn=task_grad_fn(fun, *args, has_aux=has_aux),
  )


def normal_like(key: jax.Array, tree: Any) -> Any:
  """A tree of standard normal numbers, in the leaves' shapes and dtypes."""
  leaves, treedef = jax.tree.flatten(tree)
  keys = jax.random.split(key, len(leaves))
  return jax.tree.unflatten(
    treedef,
    [
      jax.random.normal(k, x.shape, x.dtype)
      for k, x in zip(keys, leaves, strict=True)
    ],
  )
