"""Multi-task learning in JAX: per-task gradients in, one update out.

Per-task gradients become one update by a method from the literature, as an
optax transformation::

  tx = optax.chain(mtl.cagrad(num_tasks=3), optax.adam(1e-3))
  losses, grads = mtl.value_and_task_grads(task_losses)(params, batch)
  updates, state = tx.update(grads, state, params, losses=losses)

Importing this package loads jax, optax and chex, and nothing heavier; models,
data and training are subpackages to import by name.
"""

from mtljax import weightings as weightings
from mtljax._labels import label_params as label_params
from mtljax._labels import match_params as match_params
from mtljax._tree import combine as combine
from mtljax._tree import cosines as cosines
from mtljax._tree import gramian as gramian
from mtljax._types import Aggregator as Aggregator
from mtljax._types import MethodInfo as MethodInfo
from mtljax._types import TaskStats as TaskStats
from mtljax._types import Weighting as Weighting
from mtljax.aggregators import aggregate as aggregate
from mtljax.aggregators import cagrad as cagrad
from mtljax.aggregators import fairgrad as fairgrad
from mtljax.aggregators import fixed as fixed
from mtljax.aggregators import get_stats as get_stats
from mtljax.aggregators import get_weights as get_weights
from mtljax.aggregators import imtl_g as imtl_g
from mtljax.aggregators import inject_hyperparams as inject_hyperparams
from mtljax.aggregators import mean as mean
from mtljax.aggregators import mgda as mgda
from mtljax.aggregators import nash_mtl as nash_mtl
from mtljax.aggregators import pcgrad as pcgrad
from mtljax.aggregators import per_task as per_task
from mtljax.aggregators import rlw as rlw
from mtljax.aggregators import sum_losses as sum_losses
from mtljax.aggregators import uncertainty as uncertainty
from mtljax.gradients import Staged as Staged
from mtljax.gradients import task_grad_fn as task_grad_fn
from mtljax.gradients import value_and_gramian as value_and_gramian
from mtljax.gradients import value_and_task_grads as value_and_task_grads
from mtljax.sharpness import flat_regions as flat_regions
from mtljax.sharpness import normalized_ascent as normalized_ascent
from mtljax.sharpness import sam as sam

__version__ = '0.1.0'
