"""Pictures of predictions beside the truth, kept with a run for the report.

They are arrays by name. ``given/<title>`` is the same for all methods and
``made/<title>`` is a method's own: uint8 ``(N, H, W, 3)``, of N examples.
``points/<title>`` are true and predicted numbers, ``(N, 2)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np

from experiments.lab.suite import Data

#: From a batch to outputs by task.
Predict = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
#: The longest side of a picture: more is left out, row by row.
SIDE = 192
EXAMPLES = 2


def first(found: Data, count: int) -> dict[str, np.ndarray]:
  """The first examples of the test split."""
  return {name: x[:count] for name, x in found.splits['test'].items()}


def thin(images: np.ndarray) -> np.ndarray:
  """Every second, third ... pixel of ``(N, H, W, ...)``, as is needed."""
  step = max(1, -(-max(images.shape[1:3]) // SIDE))
  return images[:, ::step, ::step]


def classes(labels: np.ndarray) -> np.ndarray:
  """Colours of integer labels; black where there is none."""
  colors = np.array(mpl.colormaps['tab20'].colors)
  return _bytes(colors[labels % len(colors)], labels >= 0)


def numbers(
  values: np.ndarray, truth: np.ndarray, *, whole: bool = False
) -> np.ndarray:
  """Colours of numbers, dark to light by the range of each example's truth.

  Args:
    values: shape ``(N, H, W)``.
    truth: shape likewise; 0 is unknown, and black.
    whole: whether to show values where the truth is unknown, too.
  """
  made = []
  for own, known in zip(values, truth, strict=True):
    valid = known != 0
    low, high = known[valid].min(initial=np.inf), known.max()
    span = high - low if high > low else 1.0
    shares = np.clip((own - low) / span, 0, 1)
    colors = mpl.colormaps['viridis'](np.nan_to_num(shares))[..., :3]
    made.append(_bytes(colors, valid | whole))
  return np.stack(made)


def directions(normals: np.ndarray) -> np.ndarray:
  """Colours of vectors, red to the right, green up; black where it is 0."""
  length = np.linalg.norm(normals, axis=-1, keepdims=True)
  unit = normals / np.where(length > 0, length, 1)
  return _bytes((unit + 1) / 2, length[..., 0] > 0)


def _bytes(colors: np.ndarray, shown: np.ndarray) -> np.ndarray:
  return np.rint(255 * np.where(shown[..., None], colors, 0)).astype(np.uint8)


def dense(found: Data, predict: Predict) -> dict[str, Any]:
  """Of segmentation, depth and normals, those that a network predicts."""
  batch = first(found, EXAMPLES)
  shown = {name: thin(x) for name, x in batch.items()}
  made: dict[str, Any] = {'given/image': shown['image']}
  for name, outputs in predict(batch).items():
    outputs, truth = thin(np.asarray(outputs)), shown[name]
    if name == 'segmentation':
      pair = classes(truth), classes(outputs.argmax(-1))
    elif name == 'depth':
      pair = numbers(truth, truth), numbers(outputs[..., 0], truth, whole=True)
    else:
      pair = directions(truth), directions(outputs)
    made[f'given/{name}'], made[f'made/{name}'] = pair
  return made
