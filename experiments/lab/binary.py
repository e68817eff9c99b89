"""Tasks that are a yes or a no."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from experiments.lab.suite import Measure, Task
from mtljax.metrics import AUC, Accuracy


def example_losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Binary cross entropy of each row, ``(B,)``; logits are ``(B, 1)``."""
  return optax.losses.sigmoid_binary_cross_entropy(
    logits[:, 0], labels.astype(logits.dtype)
  )


def class_logits(logits: jax.Array) -> jax.Array:
  """Logits of both classes, ``(B, 2)``, from those of one, ``(B, 1)``."""
  return jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)


def metrics(logits, labels, mask):
  """The area under the curve, and the accuracy."""
  two = class_logits(logits)
  return {
    'auc': AUC.from_logits(logits[:, 0], labels, mask=mask),
    'accuracy': Accuracy.from_logits(two, labels, mask=mask),
  }


def binary_task(name: str) -> Task:
  """A task of labels 0 and 1, scored by the area under the curve."""
  return Task(
    name=name,
    num_outputs=1,
    num_classes=2,
    example_losses=example_losses,
    class_logits=class_logits,
    metrics=metrics,
    measures=(
      Measure(name='auc', unit='%'),
      Measure(name='accuracy', unit='%', in_delta_m=False),
    ),
  )
