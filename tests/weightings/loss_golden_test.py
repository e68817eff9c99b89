"""Agreement with the scalarizers of TorchJD 0.18.

The gradient of a scalarizer's value with respect to the losses is the weights.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax._types import TaskStats
from mtljax.weightings._dwa import dwa
from mtljax.weightings._famo import famo
from mtljax.weightings._geometric import geometric
from mtljax.weightings._imtl_l import imtl_l
from mtljax.weightings._linear import fixed, mean, sum_losses
from mtljax.weightings._stch import stch
from mtljax.weightings._uncertainty import uncertainty

CASES = ('scal_T2', 'scal_T3')
EVERY = pytest.mark.parametrize('case', CASES)


def stats_of(losses):
  return TaskStats(losses=jnp.asarray(losses))


def weights_of(weighting, losses):
  state = weighting.init(len(losses))
  return weighting.update(stats_of(losses), state)[0]


@EVERY
def test_first_weights(golden, x64, case):
  pairs = {
    'Mean': mean(),
    'Sum': sum_losses(),
    'Constant(weights)': fixed(weights=golden[f'{case}/weights']),
    'GeometricMean': geometric(),
    'STCH(mu=0.1)': stch(temperature=0.1),
    'STCH(mu=1)': stch(temperature=1.0),
    'STCH(mu=0.1,weights,reference)': stch(
      temperature=0.1,
      preference=golden[f'{case}/weights'],
      reference=golden[f'{case}/reference'],
    ),
    'UW': uncertainty(),
    'IMTLL': imtl_l(),
    'DWA': dwa(),
    'FAMO': famo(),
  }
  losses = golden[f'{case}/values']
  for name, weighting in pairs.items():
    np.testing.assert_allclose(
      weights_of(weighting, losses),
      golden[f'{case}/{name}:grad'],
      rtol=1e-9,
      err_msg=name,
    )


@EVERY
def test_learned_scales_away_from_their_start(golden, x64, case):
  losses = golden[f'{case}/values']
  pairs = {
    'UW(param)': lambda p: uncertainty(log_variance=p),
    'IMTLL(param)': lambda p: imtl_l(log_scale=p),
  }
  for name, factory in pairs.items():
    weighting = factory(golden[f'{case}/{name}:param'])
    weights, state = weighting.update(
      stats_of(losses), weighting.init(len(losses))
    )
    np.testing.assert_allclose(
      weights, golden[f'{case}/{name}:grad'], rtol=1e-9
    )
    # Adam's first moment after one step is a tenth of the gradient.
    np.testing.assert_allclose(
      10 * state.optimizer_state.mu,
      golden[f'{case}/{name}:grad_param'],
      rtol=1e-9,
    )


@EVERY
def test_dwa_over_epochs_of_two_batches(golden, x64, case):
  weighting = dwa(window=2)
  update = jax.jit(weighting.update)
  state = weighting.init(len(golden[f'{case}/values']))
  for epoch in range(4):
    for batch in range(2):
      key = f'e{epoch}b{batch}'
      weights, state = update(stats_of(golden[f'{case}/DWA_seq/{key}']), state)
      np.testing.assert_allclose(
        weights, golden[f'{case}/DWA_seq@{key}:grad'], rtol=1e-9
      )


@EVERY
def test_famo_over_steps(golden, x64, case):
  weighting = famo()
  update, observe = jax.jit(weighting.update), jax.jit(weighting.observe)
  state = weighting.init(len(golden[f'{case}/values']))
  for k in range(4):
    weights, state = update(
      stats_of(golden[f'{case}/FAMO_seq/before{k}']), state
    )
    np.testing.assert_allclose(
      weights, golden[f'{case}/FAMO_seq@{k}:grad'], rtol=1e-9
    )
    state = observe(jnp.asarray(golden[f'{case}/FAMO_seq/after{k}']), state)
    np.testing.assert_allclose(
      state.logits,
      golden[f'{case}/FAMO_seq@{k}:logits_after_update'],
      rtol=1e-9,
    )
