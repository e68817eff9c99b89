"""The optax face: per-task gradients in, one update out."""

from mtljax.aggregators._aggregate import AggregateState as AggregateState
from mtljax.aggregators._aggregate import aggregate as aggregate
from mtljax.aggregators._methods import cagrad as cagrad
from mtljax.aggregators._methods import fairgrad as fairgrad
from mtljax.aggregators._methods import fixed as fixed
from mtljax.aggregators._methods import imtl_g as imtl_g
from mtljax.aggregators._methods import inject_hyperparams as inject_hyperparams
from mtljax.aggregators._methods import mean as mean
from mtljax.aggregators._methods import mgda as mgda
from mtljax.aggregators._methods import nash_mtl as nash_mtl
from mtljax.aggregators._methods import pcgrad as pcgrad
from mtljax.aggregators._methods import rlw as rlw
from mtljax.aggregators._methods import sum_losses as sum_losses
from mtljax.aggregators._methods import uncertainty as uncertainty
from mtljax.aggregators._per_task import per_task as per_task
from mtljax.aggregators._reading import get_stats as get_stats
from mtljax.aggregators._reading import get_weights as get_weights
