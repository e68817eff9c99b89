"""Rules from task statistics to task weights, one method or family a file."""

from mtljax.weightings._cagrad import cagrad
from mtljax.weightings._fairgrad import fairgrad
from mtljax.weightings._imtl import imtl_g
from mtljax.weightings._linear import fixed, mean, sum_losses
from mtljax.weightings._mgda import mgda
from mtljax.weightings._nash import nash_mtl
from mtljax.weightings._pcgrad import pcgrad
from mtljax.weightings._rlw import rlw
from mtljax.weightings._uncertainty import uncertainty

__all__ = [
  'cagrad',
  'fairgrad',
  'fixed',
  'imtl_g',
  'mean',
  'mgda',
  'nash_mtl',
  'pcgrad',
  'rlw',
  'sum_losses',
  'uncertainty',
]
