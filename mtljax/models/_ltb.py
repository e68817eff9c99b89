"""Learning to branch: which stage of which task a stage reads, learned."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax.models import _base, _streams


class LTBTrunk(nn.Module):
  """Dilated residual networks, one a task, with branching between stages.

  Args:
    num_tasks: T.
    depth: 10, 18 or 50.
    width: channels inside the blocks of the first stage.
    temperature: as in `ltb`.
    steps_per_epoch: as there.
    warmup_epochs: as there.
    definition: as there.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.
  """

  num_tasks: int
  depth: int = 50
  width: int = 64
  temperature: float = 10.0
  steps_per_epoch: int = 1
  warmup_epochs: int = 0
  definition: str = 'paper'
  norm: str = 'batch'
  conv_impl: str = 'auto'

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False
  ) -> tuple[jax.Array, ...]:
    """Maps images (B, H, W, C) to features of each task, H / 8."""
    count, libmtl = self.num_tasks, self.definition == 'libmtl'
    shape = (6 if libmtl else 4, count, count)
    scores = self.param('branches', nn.initializers.ones_init(), shape)
    step = self.variable('schedule', 'step', lambda: jnp.zeros((), jnp.int32))
    if train:
      epoch = step.value // self.steps_per_epoch
      temperature = self.temperature / jnp.sqrt(epoch + 1.0)
      noise = jax.random.gumbel(self.make_rng('dropout'), shape, scores.dtype)
      soft = jax.nn.softmax(
        (scores + noise) / temperature.astype(scores.dtype), axis=-1
      )
      chosen = _one_hot(soft)
      chosen = soft + jax.lax.stop_gradient(chosen - soft)
      every = (
        jnp.ones_like(scores) if libmtl else jnp.full_like(scores, 1 / count)
      )
      weights = jnp.where(epoch < self.warmup_epochs, every, chosen)
      step.value += 1
    else:
      weights = _one_hot(scores)
    return _streams.streams(
      x,
      lambda i: weights[i + 1 if libmtl else i],
      num_tasks=count,
      depth=self.depth,
      width=self.width,
      norm=self.norm,
      conv_impl=self.conv_impl,
      train=train,
    )


def _one_hot(scores: jax.Array) -> jax.Array:
  return jax.nn.one_hot(scores.argmax(-1), scores.shape[-1], dtype=scores.dtype)


def ltb(
  tasks: Sequence[str] = ('segmentation', 'depth', 'normals'),
  num_outputs: Sequence[int] = (13, 1, 3),
  depth: int = 50,
  width: int = 64,
  head_features: int = 256,
  temperature: float = 10.0,
  steps_per_epoch: int = 1,
  warmup_epochs: int = 0,
  definition: str = 'paper',
  norm: str = 'batch',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  r"""Builds learning-to-branch on dilated ResNets with DeepLabV3 heads.

  Every task has a whole network, and each of its stages reads what one task's
  network gave before: drawn in training by a hard Gumbel-softmax of learned
  scores at the temperature :math:`\tau / \sqrt{epoch + 1}`, whose gradient is
  the soft one's; the most probable one in evaluation. Training needs a key, and
  the model state counts the steps.

  "Shared" is the whole trunk here. For NYUv2 it has 118,904,821 parameters,
  70,524,132 of them shared.

  Args:
    tasks: as in `deeplab_v3`.
    num_outputs: as there.
    depth: as there.
    width: as there.
    head_features: as there.
    temperature: of the first epoch; LibMTL takes a twentieth of all epochs.
    steps_per_epoch: steps after which the temperature falls.
    warmup_epochs: epochs in which stages read all tasks alike instead; LibMTL
      takes a hundredth of all epochs.
    definition: ``'paper'``, whose stages read the mean in the warm-up; or
      ``'libmtl'``, which sums there, and has scores for two places more that
      nothing reads (118,904,839 parameters).
    norm: as in `deeplab_v3`.
    conv_impl: as there.

  Returns:
    The model; it takes images ``(B, H, W, C)`` whose height and width are
    multiples of 8. Outputs are ``(B, H, W, num_outputs)``.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = ltb(('a', 'b'), (2, 1), depth=18, width=2, head_features=2)
    >>> x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    >>> params, state = jax.eval_shape(
    ...   lambda: model.init(jax.random.key(0), x)
    ... )
    >>> params['trunk']['branches'].shape, sorted(state)
    ((4, 2, 2), ['batch_stats', 'heads_0', 'heads_1', 'schedule'])

  References:
    Guo, Lee and Ulbricht, Learning to Branch for Multi-Task Learning, 2020,
    https://arxiv.org/abs/2006.01895
  """
  _validate.one_of('definition', definition, _base.DEFINITIONS)
  _validate.in_range('temperature', temperature, 0, open_low=True)
  _validate.integer('steps_per_epoch', steps_per_epoch, 1)
  _validate.integer('warmup_epochs', warmup_epochs, 0)
  make = functools.partial(
    LTBTrunk,
    depth=depth,
    width=width,
    temperature=temperature,
    steps_per_epoch=steps_per_epoch,
    warmup_epochs=warmup_epochs,
    definition=definition,
    norm=norm,
    conv_impl=conv_impl,
  )
  return _streams.make_model(
    make,
    tasks,
    num_outputs,
    'the networks of all tasks and the scores of branches',
    depth=depth,
    width=width,
    head_features=head_features,
    norm=norm,
    conv_impl=conv_impl,
  )
