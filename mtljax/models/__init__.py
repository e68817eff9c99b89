"""Networks with a shared trunk and task heads, and fast layers for them.

Each model is a `MultiTaskModel`: it applies the trunk and the heads apart, and
says which parameters are shared.
"""

from mtljax.models import layers
from mtljax.models._base import MultiTaskModel
from mtljax.models._loss import staged_loss
from mtljax.models._multi_lenet import (
  MultiLeNetHead,
  MultiLeNetTrunk,
  multi_lenet,
)
from mtljax.models._multi_mlp import MLPHead, MLPTrunk, multi_mlp
from mtljax.models._nnconv import NNConv, NNConvTrunk, nnconv
from mtljax.models._resnet import LinearHead, ResNetTrunk, resnet, resnet18
from mtljax.models._schnet import SchNetTrunk, schnet
from mtljax.models._segnet import SegNetHead, SegNetTrunk, segnet
from mtljax.models.layers import Conv, max_pool_2x2

__all__ = [
  'Conv',
  'LinearHead',
  'MLPHead',
  'MLPTrunk',
  'MultiLeNetHead',
  'MultiLeNetTrunk',
  'MultiTaskModel',
  'NNConv',
  'NNConvTrunk',
  'ResNetTrunk',
  'SchNetTrunk',
  'SegNetHead',
  'SegNetTrunk',
  'layers',
  'max_pool_2x2',
  'multi_lenet',
  'multi_mlp',
  'nnconv',
  'resnet',
  'resnet18',
  'schnet',
  'segnet',
  'staged_loss',
]
