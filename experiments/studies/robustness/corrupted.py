"""Corrupted copies of images, and heads fitted to them on a fixed trunk."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lab.problem import EVAL_BATCH, Problem, over_batches
from experiments.lab.suite import Data
from experiments.lab.task import Task
from experiments.report import files
from mtljax import data
from mtljax.data import corruptions
from mtljax.training.step import _model_state

KNOWN = (*corruptions.CORRUPTIONS, *corruptions.HELD_OUT)
#: How the heads come about that are tested: fitted to clean data only, or
#: fitted again to corrupted data.
KINDS = ('refit', 'zero_shot')
#: Parameters that are not fitted again.
FIXED = ('trunk', 'tied')
Arrays = dict[str, np.ndarray]


class Pair(NamedTuple):
  """A corruption and its severity."""

  name: str
  severity: int


def make_pairs(
  names: Sequence[str], severities: Sequence[int]
) -> tuple[Pair, ...]:
  """All pairs, the severities of a corruption one after another."""
  return tuple(
    Pair(name, severity) for name in names for severity in severities
  )


def corrupt_images(
  images: np.ndarray, pair: Pair, *, seed: int, scale: str
) -> np.ndarray:
  """Corrupts 8-bit images, in chunks of one shape: compiled once a pair.

  Args:
    images: uint8, shape ``(N, H, W, C)``.
    pair: what is done to them.
    seed: of the noise.
    scale: see `mtljax.data.corruptions.corrupt`.

  Returns:
    The images, rounded to 8 bits as in the published sets.
  """
  key = jax.random.key(seed)
  for number in (KNOWN.index(pair.name), pair.severity):
    key = jax.random.fold_in(key, number)
  size = min(EVAL_BATCH, len(images))
  made = []
  for start in range(0, len(images), size):
    chunk = images[start : start + size]
    filled = np.zeros((size, *images.shape[1:]), np.float32)
    filled[: len(chunk)] = chunk / np.float32(255)
    found = corruptions.corrupt(
      jnp.asarray(filled),
      jax.random.fold_in(key, start),
      pair.name,
      pair.severity,
      scale=scale,
    )
    made.append(np.rint(np.asarray(found)[: len(chunk)] * 255))
  return np.concatenate(made).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Corrupted:
  """The corrupted images; those of the test lie in a file a pair.

  Attributes:
    pairs: the corruptions and severities.
    train: training images under a random pair each, with their labels.
    labels: of the test images.
    folder: where the files are.
  """

  pairs: tuple[Pair, ...]
  train: Arrays
  labels: Arrays
  folder: pathlib.Path

  def test(self, pair: Pair) -> Arrays:
    """All test images under one pair, with their labels."""
    path = _path(self.folder, pair)
    try:
      image = files.read_arrays(path, name=path.stem)['test']
    except ValueError as error:
      raise OSError(
        f'{path} is damaged ({error}): the same command makes it again and '
        'goes on'
      ) from error
    return {'image': image, **self.labels}


def _path(folder: pathlib.Path, pair: Pair) -> pathlib.Path:
  return folder / f'{pair.name}_{pair.severity}.npz'


def _read(path: pathlib.Path) -> Arrays | None:
  """What a file of a pair holds; None where it is missing or damaged."""
  try:
    return files.read_arrays(path, name=path.stem)
  except (OSError, ValueError):
    return None


def make_corrupted(
  folder: pathlib.Path,
  splits: Mapping[str, Mapping[str, np.ndarray]],
  pairs: tuple[Pair, ...],
  *,
  draws: int,
  seed: int,
  scale: str,
) -> Corrupted:
  """Corrupts what is not in the folder yet, and reads the rest.

  Args:
    folder: where the images are kept.
    splits: the clean images.
    pairs: the corruptions and severities.
    draws: how often each training image is taken, under a random pair each
      time. A pair may come twice.
    seed: of the draws and of the noise.
    scale: see `mtljax.data.corruptions.corrupt`.

  Returns:
    The `Corrupted` images, the same for the same arguments.
  """
  train, test = splits['train'], splits['test']
  folder.mkdir(parents=True, exist_ok=True)
  rows = np.tile(np.arange(len(train['image'])), draws)
  chosen = np.random.default_rng((seed, draws)).integers(
    len(pairs), size=len(rows)
  )
  images = np.zeros((len(rows), *train['image'].shape[1:]), np.uint8)
  for i, pair in enumerate(pairs):
    own, path = chosen == i, _path(folder, pair)
    kept = _read(path)
    if kept is None:
      clean = np.concatenate([test['image'], train['image'][rows[own]]])
      made = corrupt_images(clean, pair, seed=seed, scale=scale)
      count = len(test['image'])
      kept = {'test': made[:count], 'train': made[count:]}
      files.write_arrays(path, kept, name=path.stem)
    images[own] = kept['train']
  labels = {name: x for name, x in test.items() if name != 'image'}
  mixed = {name: x[rows] for name, x in train.items() if name != 'image'}
  return Corrupted(pairs, {'image': images, **mixed}, labels, folder)


@dataclasses.dataclass(frozen=True)
class Trained:
  """A problem, its tasks, and the images it reads."""

  problem: Problem
  tasks: tuple[Task, ...]
  data: Data

  def features(self, params: Any, model_state: Any, batch: Any) -> jax.Array:
    """The trunk's output in evaluation mode."""
    return self.problem.model.apply_trunk(
      params, model_state, self.data.inputs(batch), train=False
    )[0]

  def scores(
    self, params: Any, model_state: Any, features: jax.Array, batch: Any
  ) -> Arrays:
    """Mergeable metrics of all heads."""
    found = {}
    for t, task in enumerate(self.tasks):
      outputs = self.problem.model.apply_head(
        t, params, features, model_state=model_state
      )
      found |= task.measure(outputs, batch)
    return found


def make_refit(
  problem: Problem,
  *,
  epochs: int,
  batch_size: int,
  learning_rate: float,
) -> Callable[..., Any]:
  """Fits the heads anew, with the same trunk.

  ``refit(params, model_state, features, labels, key) -> (params, model_state)``

  Adam on the sum of the losses, from the heads that are there; its learning
  rate falls to zero along a cosine. Trunk and what heads have in common
  (``'tied'``) are fixed and Adam works by coordinate, so every head is fitted
  as if it were alone. Statistics of batches that heads keep are taken anew.

  Args:
    problem: whose heads are fitted.
    epochs: passes over the features.
    batch_size: examples a step; a pass leaves out what fills no batch.
    learning_rate: at the beginning.

  Returns:
    The jitted function: features ``(N, ...)`` and labels ``(N, ...)`` by task.
    What heads keep in the model's state goes on with them.
  """

  @jax.jit
  def refit(params, model_state, features, labels, key):
    count = len(jax.tree.leaves(features)[0])
    size = min(batch_size, count)
    steps = count // size
    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, epochs * steps))
    heads = {name: x for name, x in params.items() if name not in FIXED}
    order_key, key = jax.random.split(key)
    orders = jax.vmap(lambda k: jax.random.permutation(k, count))(
      jax.random.split(order_key, epochs)
    )
    orders = orders[:, : steps * size].reshape(-1, size)

    def total(heads, model_state, rows, key):
      batch = {name: x[rows] for name, x in labels.items()}
      whole = params | heads
      own = jax.tree.map(lambda x: x[rows], features)
      losses, aux = zip(
        *(
          head(whole, own, batch, model_state, key)
          for head in problem.loss.heads
        ),
        strict=True,
      )
      return sum(losses), _model_state.split_aux(
        (model_state, aux), problem.loss, model_state
      )[0]

    def step(carry, xs):
      heads, model_state, state = carry
      rows, step_key = xs
      grads, model_state = jax.grad(total, has_aux=True)(
        heads, model_state, rows, step_key
      )
      updates, state = tx.update(grads, state, heads)
      return (optax.apply_updates(heads, updates), model_state, state), None

    keys = jax.random.split(key, len(orders))
    (heads, model_state, _), _ = jax.lax.scan(
      step, (heads, model_state, tx.init(heads)), (orders, keys)
    )
    return params | heads, model_state

  return refit


def make_measure(
  trained: Trained, get_corrupted: Callable[[], Corrupted], refit: Any
) -> Callable[..., tuple[dict[str, float], Arrays]]:
  """``measure(seed, state) -> (columns, arrays)``, for the cells of a study.

  The heads of one seed see the examples in the same order for every method.

  Args:
    trained: what is measured.
    get_corrupted: the corrupted images, once they are wanted.
    refit: what `make_refit` returned.

  Returns:
    The function. Arrays are metrics by pair, in order, called
    ``refit/accuracy/left`` and ``zero_shot/accuracy/left``; columns are their
    means, and ``refit_clean/...``, the fitted heads on clean test images.
  """
  features_of = jax.jit(trained.features)
  together = trained.data.eval_batch

  @jax.jit
  def on_batch(params, model_state, fitted, batch):
    features = trained.features(params, model_state, batch)
    found = {}
    both = fitted, (params, model_state)
    for kind, heads in zip(KINDS, both, strict=True):
      scores = trained.scores(*heads, features, batch)
      found |= {f'{kind}/{name}': x for name, x in scores.items()}
    return found

  def measure(seed, state):
    corrupted = get_corrupted()
    train, count = corrupted.train, len(corrupted.train['image'])
    parts = [
      jax.device_get(features_of(state.params, state.model_state, batch))
      for batch in data.eval_batches({'image': train['image']}, together)
    ]
    features = jax.tree.map(
      lambda *x: jnp.asarray(np.concatenate(x)[:count]), *parts
    )
    labels = {task: jnp.asarray(train[task]) for task in trained.problem.tasks}
    fitted = refit(
      state.params,
      state.model_state,
      features,
      labels,
      jax.random.key(seed),
    )
    evaluate = functools.partial(
      on_batch, state.params, state.model_state, fitted
    )
    by_pair = [
      over_batches(evaluate, corrupted.test(pair), together)
      for pair in corrupted.pairs
    ]
    arrays = {
      name: np.array([float(found[name]) for found in by_pair], np.float32)
      for name in by_pair[0]
    }
    clean = over_batches(evaluate, trained.data.splits['test'], together)
    columns = {name: float(x.mean()) for name, x in arrays.items()}
    columns |= {
      f'refit_clean/{name.removeprefix("refit/")}': float(x)
      for name, x in clean.items()
      if name.startswith('refit/')
    }
    return columns, arrays

  return measure
