"""Cross-stitch networks of SegNets, a network a task."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax.models import _base, _blocks, _cross_stitch, _segnet, layers
from mtljax.models._streams import HeadOfStream


class CrossStitchSegNetTrunk(nn.Module):
  """SegNets, one a task, with units between their stages.

  Args:
    num_tasks: T.
    widths: of each SegNet.
    num_convs: of each SegNet.
    own: the weight of a task's own features at the start.
    definition: as in `cross_stitch_segnet`.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.
  """

  num_tasks: int
  widths: tuple[int, ...] = (16, 32, 64)
  num_convs: tuple[int, ...] = (2, 2, 2)
  own: float = 0.9
  definition: str = 'paper'
  norm: str = 'batch'
  conv_impl: str = 'auto'

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False
  ) -> tuple[jax.Array, ...]:
    """Maps images (B, H, W, C) to features of each task, widths[0] wide."""
    count, stages = self.num_tasks, len(self.widths)
    _segnet.check_size(x, stages)
    block = _segnet.blocks(self.norm, self.conv_impl, mtan=True, train=train)
    if self.definition == 'mtan':
      units = self.param('units', nn.initializers.ones, (2 * stages - 1, count))
      units = jnp.broadcast_to(units[:, None], (2 * stages - 1, count, count))
    else:
      units = self.param(
        'units',
        _cross_stitch.near_identity(self.own),
        (2 * stages - 1, count, count),
      )

    def mixed(unit, found):
      weights = unit.astype(found[0].dtype)
      return list(jnp.einsum('ts,sbhwc->tbhwc', weights, jnp.stack(found)))

    found = [x] * count
    pooled = []
    for i, width in enumerate(self.widths):
      if i > 0:
        found = mixed(units[i - 1], found)
      places = []
      for t in range(count):
        names = [f'task{t}_encoder{i}_{j}' for j in range(self.num_convs[i])]
        last = _segnet.encode(block, found[t], width, names)[1]
        found[t], indices = layers.max_pool_2x2_with_indices(last)
        places.append(indices)
      pooled.append(places)
    for k, i in enumerate(reversed(range(stages))):
      found = mixed(units[stages - 1 + k], found)
      for t in range(count):
        names = [f'task{t}_decoder{i}_{j}' for j in range(self.num_convs[i])]
        unpooled = layers.max_unpool_2x2(found[t], pooled[i][t])
        found[t] = _segnet.decode(
          block, unpooled, self.widths, i, names, mtan=True
        )
    return tuple(found)


def cross_stitch_segnet(
  tasks: Sequence[str] = ('segmentation', 'depth', 'normals'),
  num_outputs: Sequence[int] = (13, 1, 3),
  widths: Sequence[int] = (16, 32, 64),
  num_convs: Sequence[int] = (2, 2, 2),
  own: float = 0.9,
  definition: str = 'paper',
  norm: str = 'batch',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds a cross-stitch network of SegNets, as in the tables of MTAN.

  Every task has a whole SegNet (`segnet` with ``definition='mtan'``). What a
  stage of its encoder but the first reads, and what each of its decoder unpools
  with the task's own places, is a learned mixture of what the stages before
  give in all of them. With identity units the networks are independent.

  "Shared" is the whole trunk here, as in `cross_stitch`. With
  ``widths=(64, 128, 256, 512, 512)`` and ``num_convs=(2, 2, 3, 3, 3)`` it has
  74,941,858 parameters for NYUv2.

  Args:
    tasks: the names of the tasks; the defaults are those of NYUv2.
    num_outputs: channels of each task's output.
    widths: channels of each stage of the encoders.
    num_convs: convolutions of each stage.
    own: the weight of a task's own features at the start; the other tasks have
      the rest to one, in equal parts.
    definition: ``'paper'``, a ``T x T`` unit at each place; or ``'mtan'``,
      whose units have one weight for each source, ones at the start: all tasks
      read the same sum (74,941,804 parameters; the 74,941,807 of that code
      include three log-variances, which are the weighting's here).
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.

  Returns:
    The model; it takes images ``(B, H, W, C)`` whose height and width are
    multiples of ``2 ** len(widths)``. Outputs are ``(B, H, W, num_outputs)``.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = cross_stitch_segnet(
    ...   ('a', 'b'), (2, 1), widths=(2, 4), num_convs=(1, 1)
    ... )
    >>> x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    >>> params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    >>> params['trunk']['units'].shape
    (3, 2, 2)

  References:
    Misra et al., Cross-stitch Networks for Multi-task Learning, 2016,
    https://arxiv.org/abs/1604.03539

    Liu, Johns and Davison, End-to-End Multi-Task Learning with Attention, 2019,
    https://arxiv.org/abs/1803.10704
  """
  _validate.one_of('definition', definition, _segnet.DEFINITIONS)
  _validate.in_range('own', own, 0, 1)
  _blocks.check_outputs(tasks, num_outputs)
  _segnet.check(widths, num_convs, norm, conv_impl)
  trunk = CrossStitchSegNetTrunk(
    len(tasks),
    tuple(widths),
    tuple(num_convs),
    own,
    definition,
    norm,
    conv_impl,
  )
  heads = tuple(
    HeadOfStream(t, _segnet.SegNetHead(n, conv_impl, 'mtan'))
    for t, n in enumerate(num_outputs)
  )
  about = 'the networks of all tasks and the units between them'
  return _base.MultiTaskModel(
    trunk, heads, tuple(tasks), conventions={'trunk': _base.Sharing(about)}
  )
