"""The optax face: per-task gradients in, one update out."""

from mtljax.aggregators._aggregate import AggregateState as AggregateState
from mtljax.aggregators._aggregate import aggregate as aggregate
from mtljax.aggregators._inject import inject_hyperparams as inject_hyperparams
from mtljax.aggregators._normalize import normalize_tasks as normalize_tasks
from mtljax.aggregators._per_task import per_task as per_task
from mtljax.aggregators._reading import get_stats as get_stats
from mtljax.aggregators._reading import get_weights as get_weights
from mtljax.aggregators._select import select as select
from mtljax.aggregators._validation import (
  observe_validation as observe_validation,
)
from mtljax.aggregators._wrappers import cr_mogm as cr_mogm
from mtljax.aggregators._wrappers import every_k as every_k
from mtljax.aggregators._wrappers import freeze_after as freeze_after
