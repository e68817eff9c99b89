"""Rules from task statistics to task weights, one method or family a file."""

from mtljax.weightings._aligned import aligned_mtl
from mtljax.weightings._auto_lambda import auto_lambda
from mtljax.weightings._balancer import balancer
from mtljax.weightings._bmtl import bmtl
from mtljax.weightings._cagrad import cagrad
from mtljax.weightings._coba import coba
from mtljax.weightings._conflict_free import conflict_free
from mtljax.weightings._conic_grad import conic_grad
from mtljax.weightings._cons_mtl import cons_mtl
from mtljax.weightings._cosmos import cosmos
from mtljax.weightings._dwa import dwa
from mtljax.weightings._epo import epo
from mtljax.weightings._fairgrad import fairgrad
from mtljax.weightings._famo import famo
from mtljax.weightings._geometric import geometric
from mtljax.weightings._go4align import go4align
from mtljax.weightings._gradnorm import gradnorm
from mtljax.weightings._gradvac import gradvac
from mtljax.weightings._igb import igb
from mtljax.weightings._imtl import imtl_g
from mtljax.weightings._imtl_hybrid import imtl
from mtljax.weightings._imtl_l import imtl_l
from mtljax.weightings._krum import krum
from mtljax.weightings._ldc_mtl import ldc_mtl
from mtljax.weightings._linear import fixed, mean, sum_losses
from mtljax.weightings._mgda import mgda
from mtljax.weightings._modo import modo
from mtljax.weightings._moml import moml
from mtljax.weightings._nash import nash_mtl
from mtljax.weightings._ntkmtl import ntkmtl_sr
from mtljax.weightings._pbi import pbi
from mtljax.weightings._pcd import pcd
from mtljax.weightings._pcgrad import pcgrad
from mtljax.weightings._pivrg import pivrg
from mtljax.weightings._pmgda import pmgda
from mtljax.weightings._pmtl import pmtl
from mtljax.weightings._relobralo import relobralo
from mtljax.weightings._rlw import rlw
from mtljax.weightings._sdmgrad import sdmgrad
from mtljax.weightings._select import select
from mtljax.weightings._slaw import slaw
from mtljax.weightings._slw import slw
from mtljax.weightings._stch import stch
from mtljax.weightings._uncertainty import uncertainty
from mtljax.weightings._upgrad import dual_proj, upgrad
from mtljax.weightings._uw_o import uw_o, uw_so
from mtljax.weightings._wrappers import cr_mogm, every_k, freeze_after

__all__ = [
  'aligned_mtl',
  'auto_lambda',
  'balancer',
  'bmtl',
  'cagrad',
  'coba',
  'conflict_free',
  'conic_grad',
  'cons_mtl',
  'cosmos',
  'cr_mogm',
  'dual_proj',
  'dwa',
  'epo',
  'every_k',
  'fairgrad',
  'famo',
  'fixed',
  'freeze_after',
  'geometric',
  'go4align',
  'gradnorm',
  'gradvac',
  'igb',
  'imtl',
  'imtl_g',
  'imtl_l',
  'krum',
  'ldc_mtl',
  'mean',
  'mgda',
  'modo',
  'moml',
  'nash_mtl',
  'ntkmtl_sr',
  'pbi',
  'pcd',
  'pcgrad',
  'pivrg',
  'pmgda',
  'pmtl',
  'relobralo',
  'rlw',
  'sdmgrad',
  'select',
  'slaw',
  'slw',
  'stch',
  'sum_losses',
  'uncertainty',
  'upgrad',
  'uw_o',
  'uw_so',
]
