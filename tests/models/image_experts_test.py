"""Mixtures of residual networks on images: sizes, identities, mixing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_nets import (
  IMAGE,
  KEY,
  MODELS,
  TASKS,
  TEN,
  counts,
  quick_jit,
  start,
)

from mtljax import models


def test_mixtures_of_resnets_have_the_published_sizes():
  shared, experts = 23_508_032, 4 * 23_508_032
  pixels = 64 * 64 * 3 + 1
  assert counts(models.mmoe_resnet()) == (95_470_487, [2 * shared])
  assert counts(models.cgc_resnet()) == (142_486_551, [shared])
  per_example = models.dselect_k_resnet(per_example=True)
  assert counts(per_example) == (142_634_019, [experts])
  whole, over = counts(models.dselect_k_resnet())
  assert (whole, over) == (142_634_019 - 18 * pixels + 18, [experts])
  whole, over = counts(models.ple_resnet(definition='libmtl'))
  assert (whole, over[0]) == (143_567_919, shared)
  # The paper's has a gate over all four experts at every level but the last.
  read = [64 * 64 * 3, 16 * 16 * 64, 16 * 16 * 256, 8 * 8 * 512]
  whole, (trunk, only_shared) = counts(models.ple_resnet())
  assert whole == 143_567_919 + sum(4 * (size + 1) for size in read)
  assert only_shared == shared
  # In the trunk: all but the tasks' last stages, the gates that mix what these
  # read and give, and the towers.
  last_stage = 14_964_736
  want = 4 * (shared - last_stage) + last_stage
  want += sum(4 * (size + 1) for size in read)
  want += sum(6 * (size + 1) for size in read[:-1])
  assert trunk == want


def gather(params, t):
  """Of a mixture: the tower of a task, for a network without gates."""
  head = params[f'heads_{t}']
  return head.get('last', head)['tower']


@pytest.mark.parametrize('definition', ['paper', 'libmtl'])
def test_levels_of_one_expert_are_a_shared_network(definition):
  """Nothing is mixed where each gate has one expert."""
  options = {'num_own': 0, 'definition': definition}
  model = models.ple_resnet(**TASKS, **TEN, **options)
  plain = models.deeplab_v3(**TASKS, **TEN)
  x = jnp.asarray(IMAGE, jnp.float32)
  params, _ = quick_jit(model.init)(KEY, x)
  parts = ['stem', *(f'stage{i}' for i in range(4))]
  trunk = {
    part: params['trunk'][f'level{i}_shared']['expert0']
    for i, part in enumerate(parts, start=1)
  }
  heads = {f'heads_{t}': gather(params, t) for t in range(2)}
  got = quick_jit(model.apply)(params, {}, x)
  want = quick_jit(plain.apply)({'trunk': trunk, **heads}, {}, x)
  for a, b in zip(got, want, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_cgc_on_images_without_own_experts_is_mmoe():
  params, state, x = start('mmoe_resnet')
  cgc = models.cgc_resnet(**TASKS, **TEN, num_shared=2, num_own=0)
  got = quick_jit(cgc.apply)(params, state, x)
  want = quick_jit(MODELS['mmoe_resnet'].apply)(params, state, x)
  for a, b in zip(got, want, strict=True):
    np.testing.assert_array_equal(a, b)


def test_gates_mix_experts_on_images():
  """Outputs of the towers on the mixtures of whole networks, by hand."""
  params, _, x = start('mmoe_resnet')
  plain = models.deeplab_v3(**TASKS, **TEN)
  experts = [
    quick_jit(functools.partial(plain.apply_trunk, train=False))(
      {'trunk': params['trunk']['experts'][f'expert{e}']}, {}, x
    )[0]
    for e in range(2)
  ]
  got = quick_jit(MODELS['mmoe_resnet'].apply)(params, {}, x)
  for t in range(2):
    gate = params[f'heads_{t}']['gate']
    logits = x.reshape(2, -1) @ gate['kernel'] + gate['bias'][None]
    weights = jax.nn.softmax(logits)
    mixed = sum(
      weights[:, e].reshape(-1, 1, 1, 1) * expert
      for e, expert in enumerate(experts)
    )
    own = {f'heads_{t}': gather(params, t)}
    want = quick_jit(functools.partial(plain.apply_head, t))(own, mixed)
    np.testing.assert_allclose(got[t], want, rtol=1e-4, atol=1e-5)
