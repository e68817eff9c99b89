"""Multi-task learning in JAX: per-task gradients in, one update out.

Per-task gradients become one update by a method from the literature, as an
optax transformation::

  tx = optax.chain(mtl.cagrad(num_tasks=3), optax.adam(1e-3))
  losses, grads = mtl.value_and_task_grads(task_losses)(params, batch)
  updates, state = tx.update(grads, state, params, losses=losses)

Importing this package loads jax and optax, and nothing heavier; models, data
and training are subpackages to import by name.
"""

from mtljax import contrib as contrib
from mtljax import pareto as pareto
from mtljax import weightings as weightings
from mtljax._catalog import MethodSummary as MethodSummary
from mtljax._catalog import MethodTable as MethodTable
from mtljax._catalog import get_method as get_method
from mtljax._catalog import methods as methods
from mtljax._jaxprs import canonical_convolutions as canonical_convolutions
from mtljax._labels import label_params as label_params
from mtljax._labels import match_params as match_params
from mtljax._tree import combine as combine
from mtljax._tree import cosines as cosines
from mtljax._tree import cross_gramian as cross_gramian
from mtljax._tree import gramian as gramian
from mtljax._types import Aggregator as Aggregator
from mtljax._types import MaskedBatch as MaskedBatch
from mtljax._types import MethodInfo as MethodInfo
from mtljax._types import TaskStats as TaskStats
from mtljax._types import Weighting as Weighting
from mtljax.aggregators import aggregate as aggregate
from mtljax.aggregators import cr_mogm as cr_mogm
from mtljax.aggregators import every_k as every_k
from mtljax.aggregators import freeze_after as freeze_after
from mtljax.aggregators import get_stats as get_stats
from mtljax.aggregators import get_weights as get_weights
from mtljax.aggregators import inject_hyperparams as inject_hyperparams
from mtljax.aggregators import normalize_tasks as normalize_tasks
from mtljax.aggregators import observe_validation as observe_validation
from mtljax.aggregators import per_task as per_task
from mtljax.aggregators import select as select
from mtljax.aggregators._methods import aligned_mtl as aligned_mtl
from mtljax.aggregators._methods import auto_lambda as auto_lambda
from mtljax.aggregators._methods import balancer as balancer
from mtljax.aggregators._methods import bmtl as bmtl
from mtljax.aggregators._methods import cagrad as cagrad
from mtljax.aggregators._methods import coba as coba
from mtljax.aggregators._methods import conflict_free as conflict_free
from mtljax.aggregators._methods import conic_grad as conic_grad
from mtljax.aggregators._methods import cons_mtl as cons_mtl
from mtljax.aggregators._methods import cosmos as cosmos
from mtljax.aggregators._methods import db_mtl as db_mtl
from mtljax.aggregators._methods import dual_proj as dual_proj
from mtljax.aggregators._methods import dwa as dwa
from mtljax.aggregators._methods import epo as epo
from mtljax.aggregators._methods import excess_mtl as excess_mtl
from mtljax.aggregators._methods import fairgrad as fairgrad
from mtljax.aggregators._methods import famo as famo
from mtljax.aggregators._methods import fixed as fixed
from mtljax.aggregators._methods import geometric as geometric
from mtljax.aggregators._methods import go4align as go4align
from mtljax.aggregators._methods import graddrop as graddrop
from mtljax.aggregators._methods import gradnorm as gradnorm
from mtljax.aggregators._methods import gradvac as gradvac
from mtljax.aggregators._methods import igb as igb
from mtljax.aggregators._methods import imtl as imtl
from mtljax.aggregators._methods import imtl_g as imtl_g
from mtljax.aggregators._methods import imtl_l as imtl_l
from mtljax.aggregators._methods import krum as krum
from mtljax.aggregators._methods import ldc_mtl as ldc_mtl
from mtljax.aggregators._methods import lr_annealing as lr_annealing
from mtljax.aggregators._methods import m_config as m_config
from mtljax.aggregators._methods import mean as mean
from mtljax.aggregators._methods import meta_balance as meta_balance
from mtljax.aggregators._methods import mgda as mgda
from mtljax.aggregators._methods import moco as moco
from mtljax.aggregators._methods import modo as modo
from mtljax.aggregators._methods import moml as moml
from mtljax.aggregators._methods import nash_mtl as nash_mtl
from mtljax.aggregators._methods import ntkmtl_sr as ntkmtl_sr
from mtljax.aggregators._methods import pbi as pbi
from mtljax.aggregators._methods import pcd as pcd
from mtljax.aggregators._methods import pcgrad as pcgrad
from mtljax.aggregators._methods import pivrg as pivrg
from mtljax.aggregators._methods import pmgda as pmgda
from mtljax.aggregators._methods import pmtl as pmtl
from mtljax.aggregators._methods import relobralo as relobralo
from mtljax.aggregators._methods import rlw as rlw
from mtljax.aggregators._methods import sdmgrad as sdmgrad
from mtljax.aggregators._methods import slaw as slaw
from mtljax.aggregators._methods import slw as slw
from mtljax.aggregators._methods import stch as stch
from mtljax.aggregators._methods import sum_losses as sum_losses
from mtljax.aggregators._methods import trimmed_mean as trimmed_mean
from mtljax.aggregators._methods import uncertainty as uncertainty
from mtljax.aggregators._methods import upgrad as upgrad
from mtljax.aggregators._methods import uw_o as uw_o
from mtljax.aggregators._methods import uw_so as uw_so
from mtljax.gradients import HeadAux as HeadAux
from mtljax.gradients import Staged as Staged
from mtljax.gradients import alignment_fn as alignment_fn
from mtljax.gradients import hypergradient as hypergradient
from mtljax.gradients import task_grad_fn as task_grad_fn
from mtljax.gradients import (
  value_and_feature_norms as value_and_feature_norms,
)
from mtljax.gradients import value_and_gramian as value_and_gramian
from mtljax.gradients import value_and_sample_grads as value_and_sample_grads
from mtljax.gradients import (
  value_and_sample_gramian as value_and_sample_gramian,
)
from mtljax.gradients import value_and_task_grads as value_and_task_grads
from mtljax.optimizers import adatask as adatask
from mtljax.optimizers import per_task_optimizer as per_task_optimizer
from mtljax.optimizers import signsgd as signsgd
from mtljax.sharpness import adaptive_ascent as adaptive_ascent
from mtljax.sharpness import flat_regions as flat_regions
from mtljax.sharpness import gradient_norm_penalty as gradient_norm_penalty
from mtljax.sharpness import normalized_ascent as normalized_ascent
from mtljax.sharpness import sam as sam
from mtljax.sharpness import samo as samo
from mtljax.weightings._ldc_mtl import ldc_losses as ldc_losses

__version__ = '0.1.0'
