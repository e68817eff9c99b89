"""Checkpoints that survive a kill; the only file that knows orbax.

A checkpoint is a directory written by orbax, ``<step>/``, and a *seal* beside
it, ``<step>.json``, written last and in one piece. The seal holds the small
things (data position, metadata, score) and the SHA-256 of each file. Orbax
itself notices a broken index but not a flipped byte among the parameters.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import logging
import math
import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from mtljax.training.disk import _seal
from mtljax.training.disk._seal import CheckpointError

_log = logging.getLogger(__name__)


class Checkpointer:
  """Saves a run in the background and finds its newest whole checkpoint.

  On disk stay the last checkpoint and the best one; where these are one and the
  same, the one before it stays too, so that damage to a file never takes all.
  An old checkpoint goes only after its successor is sealed. `save` copies the
  arrays to the host before it returns, so they may be donated right after.

  The processes of one run share a directory and call the same methods in the
  same order: each writes its part of the arrays, the first one seals. What any
  number of processes or devices saved, any other number restores.

  Args:
    directory: where the checkpoints go; made with the first save.
    keep_best: whether the checkpoint with the best score is kept.
    higher_is_better: the sense of the scores.

  >>> import tempfile
  >>> state = {'w': jnp.arange(3.0), 'key': jax.random.key(0)}
  >>> with (
  ...   tempfile.TemporaryDirectory() as folder,
  ...   Checkpointer(folder) as checkpointer,
  ... ):
  ...   checkpointer.save(1, state, data_state={'next': 8}, score=0.5)
  ...   state, data_state, _ = checkpointer.restore(state)
  >>> state['w'], data_state
  (Array([0., 1., 2.], dtype=float32), {'next': 8})

  ==============================  ==============================================
  case                            result
  ==============================  ==============================================
  killed while saving             that step never existed; the one before is
                                  used
  a file cut, changed or missing  skipped with a message in `skipped`
  every checkpoint damaged        `CheckpointError`, never a silent fresh start
  disk full                       `CheckpointError` at the next call; older ones
                                  are intact
  score None or NaN               kept as last, never as best
  the seal deleted by hand        taken for a save cut short, and skipped
  another tree, shape or dtype    `ValueError` naming the leaves
  leaves of size zero             not written, made anew
  64 bits while x64 is off        a numpy array, in the dtype that was saved
  ==============================  ==============================================
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    *,
    keep_best: bool = True,
    higher_is_better: bool = True,
  ):
    self.directory = pathlib.Path(directory).absolute()
    self.keep_best = keep_best
    self.higher_is_better = higher_is_better
    self.skipped: list[str] = []
    self.written: dict[str, Any] | None = None
    self._stale: set[int] = set()
    self._executor = concurrent.futures.ThreadPoolExecutor(1)
    self._pending: concurrent.futures.Future[None] | None = None
    logging.getLogger('absl').addFilter(_not_orbax)

  def save(
    self,
    step: int,
    state: Any,
    *,
    data_state: Any = None,
    meta: dict[str, Any] | None = None,
    written: dict[str, Any] | None = None,
    score: float | None = None,
  ) -> None:
    """Starts saving a state, once the save before it has ended.

    Args:
      step: the step that the state is at.
      state: a tree of arrays; may be donated when this returns.
      data_state: the place in the data, JSON or bytes.
      meta: anything small, JSON.
      written: marks of the files that go with the state, JSON; `restore` leaves
        them in the attribute ``written``. They may hold times, which no two
        runs share, so they are no part of ``meta``.
      score: what the best checkpoint is chosen by.

    Raises:
      CheckpointError: this save, or the one before it, could not be written.
      ValueError: the step is saved already.
    """
    self.wait()
    if step in self._scores():
      raise ValueError(
        f'step={step} is saved already in {self.directory}: restore it and go '
        'on, or choose another directory'
      )
    seal = {
      'step': step,
      'score': None if score is None or math.isnan(score) else float(score),
      'meta': meta or {},
      'written': written,
      'data_state': _seal.pack(data_state),
      'leaves': _leaves(state),
    }
    seal = json.loads(json.dumps(seal))
    try:
      self.directory.mkdir(parents=True, exist_ok=True)
      if jax.process_index() == 0:
        _seal.remove(self.directory, {step})
      _meet()
      self._stale -= {step}
      # Orbax knows numpy's arrays, and not its scalars.
      state = jax.tree.map(
        lambda x: np.asarray(x) if isinstance(x, np.generic) else x, state
      )
      state = jax.tree.map(lambda x: x if x.size else None, state)
      saving = ocp.save_async(self.directory / str(step), state)
    except Exception as error:  # noqa: BLE001
      raise self._write_error(step, error) from error
    self._pending = self._executor.submit(self._finish, step, saving, seal)

  def _finish(self, step: int, saving: Any, seal: dict[str, Any]) -> None:
    """In the background: seals the checkpoint, then removes the others."""
    try:
      saving.result()
      if jax.process_index() == 0:
        _seal.write(self.directory, step, seal)
        others = _seal.steps_on_disk(self.directory) - self._kept(step)
        _seal.remove(self.directory, others)
    except Exception as error:
      raise self._write_error(step, error) from error

  def wait(self) -> None:
    """Waits for the save under way, and raises if it failed."""
    pending, self._pending = self._pending, None
    if pending is not None:
      pending.result()
      _meet()  # sealed by the first process, so sealed for all

  def close(self) -> None:
    """Waits for the save under way; call it, or use a ``with`` block."""
    try:
      self.wait()
    finally:
      self._executor.shutdown()
      logging.getLogger('absl').removeFilter(_not_orbax)

  def __enter__(self) -> Checkpointer:
    return self

  def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
    try:
      self.close()
    except CheckpointError as failed:
      if kind is None:
        raise
      _log.warning('%s', failed)

  def latest_step(self) -> int | None:
    """The newest complete step, or None; its files are checked by `restore`."""
    self.wait()
    return max(self._scores(), default=None)

  def best_step(self) -> int | None:
    """The step with the best score, the earliest among equals, or None."""
    self.wait()
    return self._best(self._scores())

  def restore(
    self, example: Any, step: int | None = None
  ) -> tuple[Any, Any, dict[str, Any]]:
    """Reads the newest whole checkpoint, or a given one.

    Damaged checkpoints are passed over; `skipped` (and the log) says which and
    why.

    Args:
      example: a state, or its `jax.eval_shape`, that gives the types and, where
        it has them, the shardings.
      step: a step to read instead of the newest; then damage is an error.

    Returns:
      The state, the place in the data and the metadata, as they were saved.

    Raises:
      CheckpointError: there is no checkpoint, or none is whole.
      ValueError: the checkpoint is of another tree, shape or dtype.
    """
    self.wait()
    steps = sorted(_seal.steps_on_disk(self.directory), reverse=True)
    problems = []
    for candidate in steps if step is None else {step}.intersection(steps):
      try:
        seal = _seal.read(self.directory, candidate)
      except CheckpointError as error:
        problems.append(str(error))
        continue
      self._check_fits(candidate, seal['leaves'], example)
      state = self._load(candidate, example)
      for problem in problems:
        _log.warning('skipped: %s; using step %d instead', problem, candidate)
      self.skipped += problems
      self.written = seal.get('written')
      self._stale = {later for later in steps if later > candidate}
      return state, _seal.unpack(seal['data_state']), seal['meta']
    which = 'checkpoint' if step is None else f'checkpoint of step {step}'
    raise CheckpointError(
      f'no whole {which} in {self.directory}: '
      + ('; '.join(problems) or 'none was saved')
      + '. Start afresh with resume=False or another directory'
    )

  def _check_fits(self, step: int, saved: dict[str, str], example: Any) -> None:
    wanted = _leaves(example)
    differing = sorted(
      name
      for name in saved.keys() | wanted.keys()
      if saved.get(name) != wanted.get(name)
    )
    if differing:
      some = ', '.join(
        f'{name} (saved {saved.get(name)}, wanted {wanted.get(name)})'
        for name in differing[:3]
      )
      raise ValueError(
        f'the checkpoint of step {step} in {self.directory} is of another '
        f'state; {len(differing)} leaves differ: {some}. Use the model, method '
        'and optimizer that it was saved with, or another directory'
      )

  def _load(self, step: int, example: Any) -> Any:
    leaves, treedef = jax.tree.flatten(example)
    wanted = [_abstract(x) if math.prod(x.shape) else None for x in leaves]
    loaded = ocp.load(
      self.directory / str(step), jax.tree.unflatten(treedef, wanted)
    )
    rest = iter(jax.tree.leaves(loaded))
    return jax.tree.unflatten(
      treedef,
      [
        _zeros(x) if abstract is None else _as_asked(next(rest), x)
        for x, abstract in zip(leaves, wanted, strict=True)
      ],
    )

  def _scores(self) -> dict[int, float | None]:
    """Complete steps and their scores, without those passed over."""
    scores = _seal.scores(self.directory)
    return {n: score for n, score in scores.items() if n not in self._stale}

  def _best(self, scores: dict[int, float | None]) -> int | None:
    sign = 1 if self.higher_is_better else -1
    scored = [(s * sign, -n) for n, s in scores.items() if s is not None]
    return -max(scored)[1] if scored else None

  def _kept(self, step: int) -> set[int]:
    scores = {n: s for n, s in self._scores().items() if n <= step}
    kept = {step}
    best = self._best(scores)
    if self.keep_best and best is not None:
      kept.add(best)
    if len(kept) == 1:
      kept |= set(sorted(scores)[-2:])
    return kept

  def _write_error(self, step: int, error: Exception) -> CheckpointError:
    with contextlib.suppress(OSError):
      _seal.remove(self.directory, {step} - set(self._scores()))
    whole = sorted(self._scores())
    return CheckpointError(
      f'the checkpoint of step {step} cannot be written to {self.directory} '
      f'({_reason(error)}): free some disk space or choose another directory. '
      f'Whole checkpoints there: {whole or "none"}; the same command resumes'
    )


def _meet() -> None:
  """Waits for the other processes of the run, if there are any."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('checkpoint')


def _not_orbax(record: logging.LogRecord) -> bool:
  """Orbax logs every save through absl, and a failed one many times over."""
  return f'{os.sep}orbax{os.sep}' not in record.pathname


def _reason(error: Exception) -> str:
  """What the file system said, without tensorstore's decoration."""
  number = re.search(r"os_error_code='(\d+)'", str(error))
  return os.strerror(int(number[1])) if number else str(error)


def _leaves(tree: Any) -> dict[str, str]:
  """Path to dtype and shape."""
  leaves = {}
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path)
    if not hasattr(x, 'dtype'):
      raise TypeError(f'state{name} is {x!r}: make it a jax array')
    leaves[name] = f'{x.dtype}{list(x.shape)}'
  return leaves


def _is_too_wide(x: Any) -> bool:
  """Whether it has a type that jax has no arrays of, but numpy has."""
  if jnp.issubdtype(x.dtype, jax.dtypes.extended):
    return False
  return jax.dtypes.canonicalize_dtype(x.dtype) != x.dtype


def _is_scoped(x: Any) -> bool:
  """Whether jax has arrays of its type in this thread, but not in others.

  Inside of ``with jax.enable_x64(True)`` the threads that orbax loads in do not
  see the scope, and would narrow what they load.
  """
  if not isinstance(x, jax.Array) or x.dtype.itemsize < 8 or _is_too_wide(x):
    return False
  if jnp.issubdtype(x.dtype, jax.dtypes.extended) or x.dtype == jnp.complex64:
    return False
  with concurrent.futures.ThreadPoolExecutor(1) as other:
    return other.submit(_is_too_wide, x).result()


def _as_asked(loaded: Any, x: Any) -> Any:
  """What was loaded for ``x``, on its devices."""
  if isinstance(x, jax.Array) and isinstance(loaded, np.ndarray):
    return jax.device_put(loaded, x.sharding)
  return loaded


def _zeros(x: Any) -> jax.Array | np.ndarray:
  if _is_too_wide(x):
    return np.zeros(x.shape, x.dtype)
  return jnp.zeros(x.shape, x.dtype, device=_abstract(x).sharding)


def _abstract(x: Any) -> jax.ShapeDtypeStruct | np.ndarray:
  if _is_too_wide(x) or _is_scoped(x):
    return np.empty(x.shape, x.dtype)
  sharding = getattr(x, 'sharding', None)
  sharding = sharding or jax.sharding.SingleDeviceSharding(
    jax.local_devices()[0]
  )
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
