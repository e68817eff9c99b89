"""Everything a training run carries from one step to the next."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
  """The whole state of a training run, as one tree of arrays.

  A step takes a state and returns the next; nothing else is remembered between
  steps, so saving the state (and the place in the data) is saving the run.

  Attributes:
    step: the number of updates made, an int32 scalar.
    params: the parameters.
    model_state: what the model keeps besides parameters (batch statistics), or
      an empty dict.
    opt_state: the state of the optimizer.
    method_state: the state of the multi-task method.
    key: a typed PRNG key; a step folds `step` into it or splits it.

  >>> import jax.numpy as jnp
  >>> state = TrainState(
  ...   step=jnp.int32(0),
  ...   params={'w': jnp.ones(2)},
  ...   model_state={},
  ...   opt_state=(),
  ...   method_state=(),
  ...   key=jax.random.key(0),
  ... )
  >>> int(dataclasses.replace(state, step=state.step + 1).step)
  1
  """

  step: jax.Array
  params: Any
  model_state: Any
  opt_state: Any
  method_state: Any
  key: jax.Array
