"""One network for all preferences: the preference is an input of its trunk."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax.models import _base

Inputs = tuple[Any, jax.Array]


class PreferenceInput(nn.Module):
  """A preference beside the inputs, as COSMOS has it.

  Its entries are further columns of a table, or further channels of an image,
  the same at every place.

  Args:
    module: called as ``module(x, train=...)`` with x of shape
      ``(B, ..., C + T)``, or a tree with one array of floats, which is of it.

  Raises:
    ValueError: a tree has no array of floats, or more than one.
  """

  module: nn.Module

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool = False) -> Any:
    """Maps ``(x, preference)``, shapes ``(B, ..., C)`` and ``(T,)``."""
    tree, preference = inputs
    leaves, treedef = jax.tree.flatten(tree)
    i = _place(tree)
    x = jnp.asarray(leaves[i])
    more = jnp.broadcast_to(
      preference.astype(x.dtype).reshape(*[1] * (x.ndim - 1), -1),
      (*x.shape[:-1], preference.shape[-1]),
    )
    leaves[i] = jnp.concatenate([x, more], axis=-1)
    return self.module(jax.tree.unflatten(treedef, leaves), train=train)


def _place(tree: Any) -> int:
  """Which leaf a preference is put beside: the only one of floats."""
  found = {
    jax.tree_util.keystr(path, simple=True, separator='/'): i
    for i, (path, x) in enumerate(jax.tree_util.tree_leaves_with_path(tree))
    if jnp.issubdtype(x.dtype, jnp.floating)
  }
  if len(found) != 1:
    named = f'has {", ".join(found)}' if found else 'has none'
    raise ValueError(
      f"inputs: how='input' puts a preference beside the one array of floats, "
      f'and this tree {named}; take another way of with_preference.'
    )
  return next(iter(found.values()))


class WeightInterpolation(nn.Module):
  r"""T networks whose weights are averaged by the preference, as of PaMaL.

  .. math:: \theta = \sum_t p_t \theta_t

  T times the parameters, and a forward pass of one network.

  Args:
    module: called as ``module(x, train=...)``, without batch statistics.
    num_tasks: T.
  """

  module: nn.Module
  num_tasks: int

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool = False) -> Any:
    """Maps ``(x, preference)``, shapes ``(B, ...)`` and ``(T,)``."""
    x, preference = inputs

    def init(key):
      keys = jax.random.split(key, self.num_tasks)
      found = [_params_of(self.module, k, x) for k in keys]
      return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    members = self.param('members', init)
    params = jax.tree.map(
      lambda leaf: jnp.tensordot(preference.astype(leaf.dtype), leaf, 1),
      members,
    )
    return _run(self, params, x, train)


class LowRankPreference(nn.Module):
  r"""A network, and for each task a change of low rank, as of PaLoRA.

  .. math:: W = W_0 + \frac{s}{r} \sum_t p_t A_t B_t

  for each kernel, its axes but the last as rows; other parameters have no
  change. :math:`A` starts at random and :math:`B` at 0, so that the network
  starts as the plain one.

  Args:
    module: called as ``module(x, train=...)``, without batch statistics.
    num_tasks: T.
    rank: r.
    scale: s.
  """

  module: nn.Module
  num_tasks: int
  rank: int = 4
  scale: float = 1.0

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool = False) -> Any:
    """Maps ``(x, preference)``, shapes ``(B, ...)`` and ``(T,)``."""
    x, preference = inputs
    base = self.param('base', lambda key: _params_of(self.module, key, x))
    shape = self.num_tasks, self.rank

    def changed(path, leaf):
      if leaf.ndim < 2:
        return leaf
      name = jax.tree_util.keystr(path, simple=True, separator='_')
      rows = math.prod(leaf.shape[:-1])
      into = self.param(
        f'into_{name}',
        lambda key: jax.random.normal(key, (*shape, rows)) / rows**0.5,
      )
      out = self.param(
        f'out_{name}', lambda key: jnp.zeros((*shape, leaf.shape[-1]))
      )
      weighted = preference.astype(out.dtype)[:, None, None] * out
      change = jnp.einsum('tri,tro->io', into, weighted)
      change = self.scale / self.rank * change.reshape(leaf.shape)
      return leaf + change.astype(leaf.dtype)

    return _run(self, jax.tree_util.tree_map_with_path(changed, base), x, train)


class HyperNetwork(nn.Module):
  """A network whose parameters another makes of the preference, as of PHN.

  Dense layers with ReLU, and for every parameter a linear layer, whose bias
  starts as the parameter would: at first all preferences have nearly the same
  network. As many parameters as ``hidden_sizes[-1] + 1`` networks.

  Args:
    module: called as ``module(x, train=...)``, without batch statistics.
    hidden_sizes: units of the layers that read the preference.
    scale: standard deviation of what a preference changes at the start, by that
      of a layer with variance 1.
  """

  module: nn.Module
  hidden_sizes: tuple[int, ...] = (32, 8)
  scale: float = 0.02

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool = False) -> Any:
    """Maps ``(x, preference)``, shapes ``(B, ...)`` and ``(T,)``."""
    x, preference = inputs
    code = preference
    for i, size in enumerate(self.hidden_sizes, start=1):
      code = nn.relu(nn.Dense(size, name=f'fc{i}')(code))
    size = code.shape[-1]
    base = self.param('base', lambda key: _params_of(self.module, key, x))

    def made(path, leaf):
      name = jax.tree_util.keystr(path, simple=True, separator='_')
      kernel = self.param(
        f'of_{name}',
        lambda key: (
          self.scale / size**0.5 * jax.random.normal(key, (size, *leaf.shape))
        ),
      )
      return leaf + jnp.tensordot(code, kernel, 1).astype(leaf.dtype)

    return _run(self, jax.tree_util.tree_map_with_path(made, base), x, train)


def _params_of(module: nn.Module, key: jax.Array, x: Any) -> Any:
  """Parameters of a module of its own, whose other state is refused."""
  shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), x)
  found = dict(
    module.clone(parent=None).lazy_init({'params': key}, shapes, train=False)
  )
  params = found.pop('params')
  if found:
    raise ValueError(
      f'module {type(module).__name__} has {", ".join(found)}, which would be '
      'of other weights at every preference: take a network without, or '
      "how='input'."
    )
  return params


def _run(outer: Any, params: Any, x: Any, train: bool) -> Any:
  """The module inside with these parameters."""
  rngs = {}
  if train and outer.has_rng('dropout'):
    rngs['dropout'] = outer.make_rng('dropout')
  inner = outer.module.clone(parent=None)
  return inner.apply({'params': params}, x, train=train, rngs=rngs)


How = Literal['input', 'interpolate', 'low_rank', 'hypernetwork']
HOWS = ('input', 'interpolate', 'low_rank', 'hypernetwork')


def with_preference(
  model: _base.MultiTaskModel, how: How = 'input', *, rank: int = 4
) -> _base.MultiTaskModel:
  r"""A network whose trunk reads a preference, one for the whole curve.

  Trained with a preference drawn anew at every step (`mtljax.pareto.draw`) and
  the losses weighted by it, it has a point of the curve for each preference
  that it is later given. Heads are as before, and read the features alone.

  ================ ============================ ==============================
  how              the trunk                    parameters of it
  ================ ============================ ==============================
  ``input``        has it as further columns    T rows more
  ``interpolate``  averages T networks by it    T times
  ``low_rank``     adds T changes of low rank   :math:`r T (n + m)` more for
                                                each kernel of n by m
  ``hypernetwork`` is made from it              9 times, and a small network
  ================ ============================ ==============================

  Args:
    model: the network; its trunk keeps no batch statistics unless
      ``how='input'``, which needs one array of floats among its inputs.
    how: see the table.
    rank: r of ``'low_rank'``.

  Returns:
    The model, whose ``x`` is a pair of inputs and preference, shapes
    ``(B, ...)`` and ``(T,)``.

  Raises:
    ValueError: there is no such way, the rank is below 1, or, at
      ``model.init``, the trunk has state or ``'input'`` finds no place.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mtljax import models
    >>> model = models.with_preference(models.multi_mlp(('a', 'b')), 'low_rank')
    >>> x = jnp.zeros((4, 40)), jnp.array([0.3, 0.7])
    >>> params, model_state = model.init(jax.random.key(0), x)
    >>> [logits.shape for logits in model.apply(params, model_state, x)]
    [(4, 10), (4, 10)]

  References:
    Ruchte and Grabocka, `Scalable Pareto Front Approximation for Deep
    Multi-Objective Learning <https://arxiv.org/abs/2103.13392>`_, 2021;
    Dimitriadis et al., `Pareto Manifold Learning
    <https://arxiv.org/abs/2210.09759>`_, 2023
    and `Pareto Low-Rank Adapters <https://arxiv.org/abs/2407.08056>`_, 2024;
    Navon et al., `Learning the Pareto Front with Hypernetworks
    <https://arxiv.org/abs/2010.04104>`_, 2021
  """
  _validate.one_of('how', how, HOWS)
  rank = _validate.integer('rank', rank, 1)
  trunks = {
    'input': lambda: PreferenceInput(model.trunk),
    'interpolate': lambda: WeightInterpolation(model.trunk, model.num_tasks),
    'low_rank': lambda: LowRankPreference(model.trunk, model.num_tasks, rank),
    'hypernetwork': lambda: HyperNetwork(model.trunk),
  }
  return dataclasses.replace(model, trunk=trunks[how]())
