"""Networks with a shared trunk and task heads, and fast layers for them.

Each model is a `MultiTaskModel`: it applies the trunk and the heads apart, and
says which parameters are shared.
"""

from mtljax.models import layers
from mtljax.models._backbone import DilatedResNetTrunk
from mtljax.models._base import MultiTaskModel, Sharing, Sharings
from mtljax.models._celeba import CELEBA_ATTRIBUTES, CelebATrunk, celeba_cnn
from mtljax.models._conditioned import (
  HyperNetwork,
  LowRankPreference,
  PreferenceInput,
  WeightInterpolation,
  with_preference,
)
from mtljax.models._cross_stitch import CrossStitchTrunk, cross_stitch
from mtljax.models._cross_stitch_segnet import (
  CrossStitchSegNetTrunk,
  cross_stitch_segnet,
)
from mtljax.models._deeplab import DeepLabHead, deeplab_v3, deeplab_v3_plus
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
from mtljax.models._image_experts import (
  ImageExperts,
  PLEResNetTrunk,
  cgc_resnet,
  dselect_k_resnet,
  mmoe_resnet,
  ple_resnet,
)
from mtljax.models._loss import staged_loss
from mtljax.models._ltb import LTBTrunk, ltb
from mtljax.models._mmoe import mmoe
from mtljax.models._mtan import (
  ResNetAttentionHead,
  SegNetAttentionHead,
  mtan_resnet,
  mtan_segnet,
)
from mtljax.models._multi_lenet import (
  MultiLeNetHead,
  MultiLeNetTrunk,
  multi_lenet,
)
from mtljax.models._multi_mlp import MLPHead, MLPTrunk, multi_mlp
from mtljax.models._nnconv import NNConv, NNConvTrunk, nnconv
from mtljax.models._office import OfficeTrunk, office_resnet18
from mtljax.models._ple import PLEFeatures, PLEHead, PLETrunk, cgc, ple
from mtljax.models._resize import resize_bilinear
from mtljax.models._resnet import LinearHead, ResNetTrunk, resnet, resnet18
from mtljax.models._schnet import SchNetTrunk, schnet
from mtljax.models._segnet import SegNetHead, SegNetTrunk, segnet
from mtljax.models._streams import HeadOfStream
from mtljax.models._transformers import TextTrunk, ViTTrunk, text_encoder, vit
from mtljax.models.layers import Conv, max_pool_2x2

__all__ = [
  'ple_resnet',
  'mmoe_resnet',
  'dselect_k_resnet',
  'cgc_resnet',
  'PLEResNetTrunk',
  'ImageExperts',
  'CELEBA_ATTRIBUTES',
  'CelebATrunk',
  'Conv',
  'CrossStitchSegNetTrunk',
  'CrossStitchTrunk',
  'DSelectKHead',
  'DeepLabHead',
  'DilatedResNetTrunk',
  'EmbedColumns',
  'ExpertFeatures',
  'Experts',
  'ExpertsTrunk',
  'GatedHead',
  'HeadOfStream',
  'HyperNetwork',
  'LTBTrunk',
  'LinearHead',
  'LowRankPreference',
  'MLPHead',
  'MLPTrunk',
  'MultiLeNetHead',
  'MultiLeNetTrunk',
  'MultiTaskModel',
  'NNConv',
  'NNConvTrunk',
  'OfficeTrunk',
  'PLEFeatures',
  'PLEHead',
  'PLETrunk',
  'PreferenceInput',
  'ResNetAttentionHead',
  'ResNetTrunk',
  'SchNetTrunk',
  'SegNetAttentionHead',
  'SegNetHead',
  'SegNetTrunk',
  'Sharing',
  'Sharings',
  'TextTrunk',
  'ViTTrunk',
  'WeightInterpolation',
  'celeba_cnn',
  'cgc',
  'cross_stitch',
  'cross_stitch_segnet',
  'deeplab_v3',
  'deeplab_v3_plus',
  'dselect_k',
  'layers',
  'ltb',
  'max_pool_2x2',
  'mmoe',
  'mtan_resnet',
  'mtan_segnet',
  'multi_lenet',
  'multi_mlp',
  'nnconv',
  'office_resnet18',
  'ple',
  'resize_bilinear',
  'resnet',
  'resnet18',
  'schnet',
  'segnet',
  'selection_penalty',
  'smooth_step',
  'staged_loss',
  'text_encoder',
  'vit',
  'with_preference',
]
