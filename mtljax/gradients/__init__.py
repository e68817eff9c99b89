"""How losses become statistics and per-task gradients."""

from mtljax.gradients._alignment import alignment_fn as alignment_fn
from mtljax.gradients._hypergradient import hypergradient as hypergradient
from mtljax.gradients._samples import (
  value_and_sample_grads as value_and_sample_grads,
)
from mtljax.gradients._samples import (
  value_and_sample_gramian as value_and_sample_gramian,
)
from mtljax.gradients._staged import HeadAux as HeadAux
from mtljax.gradients._staged import Staged as Staged
from mtljax.gradients._task_grads import task_grad_fn as task_grad_fn
from mtljax.gradients._task_grads import (
  value_and_feature_norms as value_and_feature_norms,
)
from mtljax.gradients._task_grads import value_and_gramian as value_and_gramian
from mtljax.gradients._task_grads import (
  value_and_task_grads as value_and_task_grads,
)
