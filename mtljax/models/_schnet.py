"""SchNet: continuous-filter convolutions over the atoms of a molecule."""

from __future__ import annotations

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax.models import _base, _molecules
from mtljax.models._resnet import LinearHead

_NUM_KINDS = 100


def _softplus(x: jax.Array) -> jax.Array:
  """Softplus, shifted to be 0 at 0."""
  return nn.softplus(x) - math.log(2.0)


class SchNetTrunk(nn.Module):
  """See `schnet`, whose arguments these are.

  Args:
    width: units of an atom's state.
    num_filters: units of a convolution.
    num_interactions: blocks, each with its own parameters.
    num_gaussians: that describe a distance.
    cutoff: distance, in Angstrom, beyond which atoms do not act on each other.
  """

  width: int = 128
  num_filters: int = 128
  num_interactions: int = 6
  num_gaussians: int = 50
  cutoff: float = 10.0

  @nn.compact
  def __call__(
    self, x: _molecules.Molecules, *, train: bool = False
  ) -> jax.Array:
    """Maps molecules to features (B, width // 2)."""
    del train
    found = _molecules.pairs_of(x)
    d = found.distances
    rate = 0.5 * ((self.num_gaussians - 1) / self.cutoff) ** 2
    edges = _molecules.gaussians(d, 0.0, self.cutoff, self.num_gaussians, rate)
    near = found.pairs & (d <= self.cutoff)
    reach = jnp.where(near, 0.5 * (jnp.cos(d * jnp.pi / self.cutoff) + 1), 0)
    embed = nn.Embed(
      _NUM_KINDS,
      self.width,
      embedding_init=nn.initializers.normal(1.0),
      dtype=d.dtype,
      name='embedding',
    )
    state = embed(x['numbers'].astype(jnp.int32))
    for i in range(self.num_interactions):
      block = _Interaction(
        self.width, self.num_filters, name=f'interaction_{i}'
      )
      state = state + block(state, edges, reach)
    state = _softplus(_dense(self.width // 2, 'out')(state))
    return jnp.sum(state * found.atoms[..., None].astype(d.dtype), 1)


def _dense(size: int, name: str, use_bias: bool = True) -> nn.Dense:
  return nn.Dense(
    size,
    use_bias=use_bias,
    kernel_init=nn.initializers.xavier_uniform(),
    name=name,
  )


class _Interaction(nn.Module):
  """What the other atoms add to the state of each."""

  width: int
  num_filters: int

  @nn.compact
  def __call__(
    self, state: jax.Array, edges: jax.Array, reach: jax.Array
  ) -> jax.Array:
    filters = _softplus(_dense(self.num_filters, 'filter_1')(edges))
    filters = _dense(self.num_filters, 'filter_2')(filters) * reach[..., None]
    x = _dense(self.num_filters, 'input', use_bias=False)(state)
    x = jnp.einsum('bijf,bjf->bif', filters, x)
    x = _softplus(_dense(self.width, 'conv')(x))
    return _dense(self.width, 'output')(x)


def schnet(
  tasks: Sequence[str],
  num_outputs: int = 1,
  *,
  width: int = 128,
  num_filters: int = 128,
  num_interactions: int = 6,
  num_gaussians: int = 50,
  cutoff: float = 10.0,
) -> _base.MultiTaskModel:
  """Builds SchNet with a head a task.

  Trunk, shared by all tasks: an embedding of the atoms' numbers, blocks of
  continuous-filter convolutions, a layer of half the width, and the sum over
  atoms. Heads are linear. With one task it has 455,809 parameters, as the
  implementation in PyTorch Geometric, whose last layer comes before the sum and
  so adds its bias once an atom; here it is added once.

  Batches are as those of `nnconv`, without ``nodes`` and ``edges``.

  Args:
    tasks: the names of the tasks.
    num_outputs: of every head.
    width: units of an atom's state, even.
    num_filters: units of a convolution.
    num_interactions: blocks.
    num_gaussians: that describe a distance, at least 2.
    cutoff: distance, in Angstrom, beyond which atoms do not act on each other.

  Returns:
    The model.

  Raises:
    ValueError: if a size is too small, or the width odd.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> oxygen = {
    ...   'numbers': jnp.array([[8, 8, 0]]),
    ...   'positions': jnp.array([[[0.0, 0, 0], [1.21, 0, 0], [0, 0, 0]]]),
    ... }
    >>> model = schnet(('mu', 'alpha'), width=8, num_filters=8)
    >>> params, model_state = model.init(jax.random.key(0), oxygen)
    >>> [y.shape for y in model.apply(params, model_state, oxygen)]
    [(1, 1), (1, 1)]

  References:
    Schütt et al., SchNet: A continuous-filter convolutional neural network for
    modeling quantum interactions, 2017, https://arxiv.org/abs/1706.08566
  """
  for name, value, low in (
    ('num_outputs', num_outputs, 1),
    ('width', width, 2),
    ('num_filters', num_filters, 1),
    ('num_interactions', num_interactions, 1),
    ('num_gaussians', num_gaussians, 2),
  ):
    _validate.integer(name, value, low)
  if width % 2:
    raise ValueError(f'width={width} must be even: the last layer has half.')
  _validate.in_range('cutoff', cutoff, 0, open_low=True)
  trunk = SchNetTrunk(
    width, num_filters, num_interactions, num_gaussians, cutoff
  )
  return _base.with_same_heads(trunk, LinearHead(num_outputs), tasks)
