"""Tasks that are a yes or a no."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax

from experiments.lab.task import Measure, Task
from mtljax.metrics import AUC, F1, Accuracy

SCORES = {'auc': AUC, 'f1': F1}


def example_losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Binary cross entropy of each row, ``(B,)``; logits are ``(B, 1)``."""
  return optax.losses.sigmoid_binary_cross_entropy(
    logits[:, 0], labels.astype(logits.dtype)
  )


def class_logits(logits: jax.Array) -> jax.Array:
  """Logits of both classes, ``(B, 2)``, from those of one, ``(B, 1)``."""
  return jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)


def metrics(score, logits, labels, mask):
  """The score, and the accuracy."""
  two = class_logits(logits)
  return {
    score: SCORES[score].from_logits(logits[:, 0], labels, mask=mask),
    'accuracy': Accuracy.from_logits(two, labels, mask=mask),
  }


def binary_task(name: str, score: str = 'auc') -> Task:
  """A task of labels 0 and 1.

  Args:
    name: of the task.
    score: ``'auc'``, the area under the curve, or ``'f1'``, that of label 1.
  """
  return Task(
    name=name,
    num_outputs=1,
    num_classes=2,
    example_losses=example_losses,
    class_logits=class_logits,
    metrics=functools.partial(metrics, score),
    measures=(
      Measure(name=score, unit='%'),
      Measure(name='accuracy', unit='%', in_delta_m=False),
    ),
  )
