"""Mixtures of experts that are dilated residual networks, on images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax.models import _backbone, _base, _blocks, _deeplab, _experts
from mtljax.models._dselect_k import DSelectKHead, check_gate
from mtljax.models._ple import Levels, PLEHead

#: The stem and the four stages, a level each.
NUM_LEVELS = 5


class Images(nn.Module):
  """The encoder that leaves images as they are."""

  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Returns x."""
    del train
    return x


class ImageExperts(nn.Module):
  """Dilated residual networks side by side, or one part of each.

  Args:
    num_experts: E.
    depth: 10, 18 or 50.
    width: channels inside the blocks of the first stage.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.
    level: 0: whole networks; 1: stems; 2 to 5: one of the four stages.
  """

  num_experts: int
  depth: int = 50
  width: int = 64
  norm: str = 'batch'
  conv_impl: str = 'auto'
  level: int = 0

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps (B, H, W, C) to (B, E, H', W', C')."""
    return jnp.stack(
      [self._one(f'expert{e}', x, train) for e in range(self.num_experts)], 1
    )

  def _one(self, name, x, train):
    kind = self.norm, self.conv_impl
    if self.level == 0:
      return _backbone.DilatedResNetTrunk(
        self.depth, self.width, 'last', *kind, name=name
      )(x, train=train)
    if self.level == 1:
      return _backbone.Stem(self.width, *kind, name=name)(x, train=train)
    return _backbone.Stage(
      self.level - 2, self.depth, self.width, *kind, name=name
    )(x, train=train)[1]


class PLEResNetTrunk(Levels):
  """Levels of stems and stages.

  Args:
    depth: 10, 18 or 50.
    width: channels inside the blocks of the first stage.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.
  """

  depth: int = 50
  width: int = 64
  norm: str = 'batch'
  conv_impl: str = 'auto'

  def encode(self, x: Any, train: bool) -> jax.Array:
    """Images as they are."""
    del train
    return x

  def experts(self, level: int, count: int, name: str) -> nn.Module:
    """Stems at the first level, a stage of each network at the others."""
    return ImageExperts(
      count,
      self.depth,
      self.width,
      self.norm,
      self.conv_impl,
      level,
      name=name,
    )


def mmoe_resnet(
  tasks: Sequence[str] = ('segmentation', 'depth', 'normals'),
  num_outputs: Sequence[int] = (13, 1, 3),
  num_experts: int = 2,
  depth: int = 50,
  width: int = 64,
  head_features: int = 256,
  norm: str = 'batch',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds MMoE on images: experts are dilated ResNets, towers DeepLabV3 heads.

  A task's gate is a dense layer on the *pixels*, so its size goes with that of
  the images, and the network is for images of one size. With two experts and
  images of 64 x 64 it has 95,470,487 parameters for NYUv2, of which 47,016,064
  are shared, as LibMTL's.

  Shared: all experts. Of a task's own: its gate and its head.

  Args:
    tasks: as in `deeplab_v3`.
    num_outputs: as there.
    num_experts: E.
    depth: as there.
    width: as there.
    head_features: as there.
    norm: as there.
    conv_impl: as there.

  Returns:
    The model; it takes images ``(B, H, W, C)`` whose height and width are
    multiples of 8. Outputs are ``(B, H, W, num_outputs)``.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = mmoe_resnet(('a', 'b'), (2, 1), 2, 18, width=2, head_features=2)
    >>> x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    >>> params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    >>> params['heads_0']['gate']['kernel'].shape
    (192, 2)

  References:
    Ma et al., Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts, 2018,
    https://doi.org/10.1145/3219819.3220007
  """
  towers = _towers(
    tasks, num_outputs, depth, width, head_features, norm, conv_impl
  )
  num_experts = _validate.integer('num_experts', num_experts, 1)
  heads = [_experts.GatedHead(tower) for tower in towers]
  experts = ImageExperts(num_experts, depth, width, norm, conv_impl)
  return _mixture(experts, heads, tasks)


def cgc_resnet(
  tasks: Sequence[str] = ('segmentation', 'depth', 'normals'),
  num_outputs: Sequence[int] = (13, 1, 3),
  num_shared: int = 1,
  num_own: int = 1,
  depth: int = 50,
  width: int = 64,
  head_features: int = 256,
  norm: str = 'batch',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds CGC on images: as `mmoe_resnet`, with experts of each task's own.

  With one shared expert, one a task and images of 64 x 64 it has 142,486,551
  parameters for NYUv2, of which 23,508,032 are shared, as LibMTL's.

  Shared: the shared experts. Of a task's own: its experts, its gate, its head.

  Args:
    tasks: as in `deeplab_v3`.
    num_outputs: as there.
    num_shared: shared experts.
    num_own: experts of each task's own, 0 or more.
    depth: as there.
    width: as there.
    head_features: as there.
    norm: as there.
    conv_impl: as there.

  Returns:
    The model, as `mmoe_resnet`.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> model = cgc_resnet(depth=18, width=2, head_features=2)
    >>> model.heads[0].experts.num_experts
    1

  References:
    Tang et al., Progressive Layered Extraction (PLE), 2020,
    https://doi.org/10.1145/3383313.3412236
  """
  towers = _towers(
    tasks, num_outputs, depth, width, head_features, norm, conv_impl
  )
  num_shared = _validate.integer('num_shared', num_shared, 1)
  num_own = _validate.integer('num_own', num_own, 0)
  kind = depth, width, norm, conv_impl
  own = ImageExperts(num_own, *kind) if num_own else None
  heads = [_experts.GatedHead(tower, own) for tower in towers]
  return _mixture(ImageExperts(num_shared, *kind), heads, tasks)


def ple_resnet(
  tasks: Sequence[str] = ('segmentation', 'depth', 'normals'),
  num_outputs: Sequence[int] = (13, 1, 3),
  num_shared: int = 1,
  num_own: int = 1,
  depth: int = 50,
  width: int = 64,
  head_features: int = 256,
  definition: str = 'paper',
  norm: str = 'batch',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds PLE on images: the stem and the four stages are a level each.

  At every level each task's experts read the task's features and the shared
  experts the shared ones, and gates mix them, as in `ple`. A gate is a dense
  layer on all that its level reads, so the network is for images of one size.
  With one shared expert, one a task and images of 64 x 64, LibMTL's definition
  has 143,567,919 parameters for NYUv2.

  Args:
    tasks: as in `deeplab_v3`.
    num_outputs: as there.
    num_shared: shared experts.
    num_own: experts of each task's own, 0 or more.
    depth: as there.
    width: as there.
    head_features: as there.
    definition: ``'paper'``; or ``'libmtl'``, which has no shared gate: from the
      second level on the shared experts are evaluated on the features of each
      task, T times the work.
    norm: as there.
    conv_impl: as there.

  Returns:
    The model, as `mmoe_resnet`. Its conventions are ``'trunk'``, all that
    several losses read by the paper's definition, and ``'shared_experts'``,
    LibMTL's: the Gramian over these alone, 23,508,032 parameters. LibMTL's
    definition has the second by default.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> model = ple_resnet(depth=18, width=2, head_features=2)
    >>> sorted(model.conventions)
    ['shared_experts', 'trunk']

  References:
    Tang et al., Progressive Layered Extraction (PLE), 2020,
    https://doi.org/10.1145/3383313.3412236
  """
  _validate.one_of('definition', definition, _base.DEFINITIONS)
  towers = _towers(
    tasks, num_outputs, depth, width, head_features, norm, conv_impl
  )
  num_shared = _validate.integer('num_shared', num_shared, 1)
  num_own = _validate.integer('num_own', num_own, 0)
  kind = depth, width, norm, conv_impl
  own = ImageExperts(num_own, *kind, NUM_LEVELS) if num_own else None
  heads = [
    PLEHead(
      t, _experts.GatedHead(tower, own, raw_inputs=False), raw_inputs=False
    )
    for t, tower in enumerate(towers)
  ]
  trunk = PLEResNetTrunk(
    len(tasks),
    NUM_LEVELS,
    num_shared,
    num_own,
    definition == 'paper',
    *kind,
  )
  conventions = {
    'trunk': _base.Sharing('all that the losses of several tasks read'),
    'shared_experts': _base.Sharing(
      'the shared experts of all levels, as in LibMTL',
      gramian=(r'trunk/level\d_shared/.*',),
    ),
  }
  if definition == 'libmtl':
    conventions = dict(reversed(conventions.items()))
  return _base.MultiTaskModel(
    trunk, tuple(heads), tuple(tasks), conventions=conventions
  )


def dselect_k_resnet(
  tasks: Sequence[str] = ('segmentation', 'depth', 'normals'),
  num_outputs: Sequence[int] = (13, 1, 3),
  num_experts: int = 4,
  num_selected: int = 2,
  depth: int = 50,
  width: int = 64,
  head_features: int = 256,
  per_example: bool = False,
  gamma: float = 1.0,
  entropy_weight: float = 1e-6,
  norm: str = 'batch',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds DSelect-k on images: `mmoe_resnet` with the gates of `dselect_k`.

  With four experts, two selectors that read the pixels (``per_example``) and
  images of 64 x 64 it has 142,634,019 parameters for NYUv2, of which 94,032,128
  are shared, as LibMTL's, whose penalty never reaches the update.

  Shared: all experts. Of a task's own: its selectors and its head.

  Args:
    tasks: as in `deeplab_v3`.
    num_outputs: as there.
    num_experts: E, at least 2.
    num_selected: k.
    depth: as there.
    width: as there.
    head_features: as there.
    per_example: as in `dselect_k`.
    gamma: as there.
    entropy_weight: as there.
    norm: as in `deeplab_v3`.
    conv_impl: as there.

  Returns:
    The model, as `mmoe_resnet`; with selectors that read no pixels, for images
    of any size.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> model = dselect_k_resnet(depth=18, width=2, head_features=2)
    >>> model.heads[0].num_selected
    2

  References:
    Hazimeh et al., DSelect-k: Differentiable Selection in the Mixture of
    Experts with Applications to Multi-Task Learning, 2021,
    https://arxiv.org/abs/2106.03760
  """
  towers = _towers(
    tasks, num_outputs, depth, width, head_features, norm, conv_impl
  )
  gate = check_gate(
    num_experts, num_selected, per_example, gamma, entropy_weight
  )
  heads = [DSelectKHead(tower, **gate) for tower in towers]
  experts = ImageExperts(gate['num_experts'], depth, width, norm, conv_impl)
  return _mixture(experts, heads, tasks)


def _mixture(experts, heads, tasks):
  """The model of whole networks that read the images."""
  trunk = _experts.ExpertsTrunk(experts, Images())
  return _base.MultiTaskModel(trunk, tuple(heads), tuple(tasks))


def _towers(tasks, num_outputs, depth, width, head_features, norm, conv_impl):
  """A DeepLabV3 head a task, all arguments checked."""
  _blocks.check_outputs(tasks, num_outputs)
  _backbone.check(depth, width, norm, conv_impl)
  return _deeplab.make_heads(num_outputs, head_features, norm, conv_impl)
