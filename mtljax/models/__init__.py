"""Networks with a shared trunk and task heads, and fast layers for them.

Each model is a `MultiTaskModel`: it applies the trunk and the heads apart, and
says which parameters are shared.
"""

from mtljax.models import layers
from mtljax.models._base import MultiTaskModel
from mtljax.models._dselect_k import (
  DSelectKHead,
  dselect_k,
  selection_penalty,
  smooth_step,
)
from mtljax.models._embed import EmbedColumns
from mtljax.models._experts import (
  ExpertFeatures,
  Experts,
  ExpertsTrunk,
  GatedHead,
)
from mtljax.models._loss import staged_loss
from mtljax.models._mmoe import mmoe
from mtljax.models._multi_lenet import (
  MultiLeNetHead,
  MultiLeNetTrunk,
  multi_lenet,
)
from mtljax.models._multi_mlp import MLPHead, MLPTrunk, multi_mlp
from mtljax.models._nnconv import NNConv, NNConvTrunk, nnconv
from mtljax.models._ple import PLEFeatures, PLEHead, PLETrunk, cgc, ple
from mtljax.models._resnet import LinearHead, ResNetTrunk, resnet, resnet18
from mtljax.models._schnet import SchNetTrunk, schnet
from mtljax.models._segnet import SegNetHead, SegNetTrunk, segnet
from mtljax.models.layers import Conv, max_pool_2x2

__all__ = [
  'Conv',
  'DSelectKHead',
  'EmbedColumns',
  'ExpertFeatures',
  'Experts',
  'ExpertsTrunk',
  'GatedHead',
  'LinearHead',
  'MLPHead',
  'MLPTrunk',
  'MultiLeNetHead',
  'MultiLeNetTrunk',
  'MultiTaskModel',
  'PLEFeatures',
  'PLEHead',
  'PLETrunk',
  'NNConv',
  'NNConvTrunk',
  'ResNetTrunk',
  'SchNetTrunk',
  'SegNetHead',
  'SegNetTrunk',
  'cgc',
  'dselect_k',
  'layers',
  'max_pool_2x2',
  'mmoe',
  'multi_lenet',
  'multi_mlp',
  'ple',
  'nnconv',
  'resnet',
  'resnet18',
  'schnet',
  'segnet',
  'selection_penalty',
  'smooth_step',
  'staged_loss',
]
