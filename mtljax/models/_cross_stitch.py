"""Cross-stitch networks: a network a task, linear mixtures between stages."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax.models import _base, _streams


def near_identity(own: float) -> Callable[..., jax.Array]:
  """The initializer of units ``(..., T, T)``: a task's own, the rest alike."""

  def init(key, shape, dtype=jnp.float32):
    del key
    count = shape[-1]
    other = (1 - own) / max(count - 1, 1)
    unit = jnp.where(jnp.eye(count) == 1, own if count > 1 else 1, other)
    return jnp.broadcast_to(unit, shape).astype(dtype)

  return init


class CrossStitchTrunk(nn.Module):
  """Dilated residual networks, one a task, with units between their stages.

  Args:
    num_tasks: T.
    depth: 10, 18 or 50.
    width: channels inside the blocks of the first stage.
    own: the weight of a task's own features at the start.
    definition: as in `cross_stitch`.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.
  """

  num_tasks: int
  depth: int = 50
  width: int = 64
  own: float = 0.9
  definition: str = 'paper'
  norm: str = 'batch'
  conv_impl: str = 'auto'

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False
  ) -> tuple[jax.Array, ...]:
    """Maps images (B, H, W, C) to features of each task, H / 8."""
    count = self.num_tasks
    if self.definition == 'libmtl':
      init, units = nn.initializers.ones_init(), 4
    else:
      init, units = near_identity(self.own), 3
    units = self.param('units', init, (units, count, count))
    return _streams.streams(
      x,
      lambda i: None if i == 0 else units[i - 1],
      num_tasks=count,
      depth=self.depth,
      width=self.width,
      norm=self.norm,
      conv_impl=self.conv_impl,
      train=train,
    )


def cross_stitch(
  tasks: Sequence[str] = ('segmentation', 'depth', 'normals'),
  num_outputs: Sequence[int] = (13, 1, 3),
  depth: int = 50,
  width: int = 64,
  head_features: int = 256,
  own: float = 0.9,
  definition: str = 'paper',
  norm: str = 'batch',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds a cross-stitch network of dilated ResNets with DeepLabV3 heads.

  Every task has a whole network. What a stage reads is a learned mixture of
  what the stages before give in all of them, one ``T x T`` unit for each of the
  three places between stages. With identity units the networks are independent.

  "Shared" is the whole trunk here, T networks and their units: every loss
  reads all but the last stages of the others. For NYUv2 it has 118,904,812
  parameters, 70,524,123 of them shared.

  Args:
    tasks: as in `deeplab_v3`.
    num_outputs: as there.
    depth: as there.
    width: as there.
    head_features: as there.
    own: the weight of a task's own features at the start; the other tasks have
      the rest to one, in equal parts.
    definition: ``'paper'``; or ``'libmtl'``, whose units are all ones at the
      start, so that features of T tasks are summed, and which has a fourth one
      that nothing reads (118,904,821 and 70,524,132 parameters).
    norm: as in `deeplab_v3`.
    conv_impl: as there.

  Returns:
    The model; it takes images ``(B, H, W, C)`` whose height and width are
    multiples of 8. Outputs are ``(B, H, W, num_outputs)``.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = cross_stitch(('a', 'b'), (2, 1), 18, width=2, head_features=2)
    >>> x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    >>> params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    >>> params['trunk']['units'].shape
    (3, 2, 2)

  References:
    Misra et al., Cross-stitch Networks for Multi-task Learning, 2016,
    https://arxiv.org/abs/1604.03539
  """
  _validate.one_of('definition', definition, _base.DEFINITIONS)
  _validate.in_range('own', own, 0, 1)
  make = functools.partial(
    CrossStitchTrunk,
    depth=depth,
    width=width,
    own=own,
    definition=definition,
    norm=norm,
    conv_impl=conv_impl,
  )
  return _streams.make_model(
    make,
    tasks,
    num_outputs,
    'the networks of all tasks and the units between them',
    depth=depth,
    width=width,
    head_features=head_features,
    norm=norm,
    conv_impl=conv_impl,
  )
