"""What the numbers of a study hang on: versions, code, data; and its folder."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import mtljax
from experiments.lab import options
from experiments.report import files
from mtljax.training import ConfigMismatchError, Run, open_run
from mtljax.training.disk import _rundir, _seal

LIBRARIES = ('jax', 'jaxlib', 'optax', 'flax', 'numpy')
#: Modules that make no number of a run: rooms, and files of any room.
NOT_ROOMS = ('report',)
NOT_CODE = ('claims', 'figures', 'report', 'rows', 'tables', 'console')
NOT_CODE += (
  'command',
  'identity',
  'launch',
  'processes',
  'progress',
  '__main__',
)


@functools.cache
def code() -> dict[str, str]:
  """Digests of the sources, comments included.

  Of all of mtljax, since a method hangs on solvers, gradients, the train step
  and the data; and of the modules of the experiments that make numbers.
  """
  root = pathlib.Path(mtljax.__file__).parent
  here = pathlib.Path(__file__).parent.parent
  ours = [
    path
    for path in here.rglob('*.py')
    if path.relative_to(here).parts[0] not in NOT_ROOMS
    and path.stem not in NOT_CODE
  ]
  return {
    'mtljax': _digest_sources(root, root.rglob('*.py')),
    'experiments': _digest_sources(here, ours),
  }


def _digest_sources(root: pathlib.Path, paths: Iterable[pathlib.Path]) -> str:
  digest = hashlib.sha256()
  for path in sorted(paths):
    text = path.read_bytes()
    digest.update(f'{path.relative_to(root).as_posix()} {len(text)}\n'.encode())
    digest.update(text)
  return digest.hexdigest()


def identity(data: Mapping[str, Any]) -> dict[str, Any]:
  """What ``config.json`` says on versions, code and data.

  Args:
    data: by the name of a data set, digests of its splits.
  """
  versions = {x: importlib.metadata.version(x) for x in LIBRARIES}
  versions |= {
    'mtljax': mtljax.__version__,
    'python': platform.python_version(),
  }
  return {'versions': versions, 'code': code(), 'data': dict(data)}


def digests(
  splits: Mapping[str, Mapping[str, Any]],
) -> dict[str, str]:
  """A digest of each split, over all its arrays."""
  return {name: files.digest_arrays(arrays) for name, arrays in splits.items()}


def kept(config: Any) -> dict[str, str]:
  """The options that a run keeps from its beginning to its end, as JSON."""
  values = json.loads(json.dumps(dataclasses.asdict(config), default=str))
  flat = dict(_rundir.flatten(values))
  inside = options.changing(config, options.BETWEEN_RUNS)
  return {name: flat[name] for name in inside if name in flat}


def begin(folder: pathlib.Path, kept: Mapping[str, str]) -> None:
  """Notes under which options a run is begun, or gone on with."""
  files.write_json(folder / files.RUN, {'options': dict(kept)})


def is_begun(folder: pathlib.Path) -> bool:
  """Whether there is something to go on with."""
  return bool(_seal.steps_on_disk(folder / 'checkpoints', sealed=True))


def open_study(
  config: Any,
  values: Mapping[str, Any],
  *,
  growing: Iterable[str] = (),
  data: Mapping[str, Any] | None = None,
  inside: Mapping[str, str] | None = None,
  runs: Callable[[], Iterable[tuple[pathlib.Path, bool]]] = tuple,
  finished: Callable[[], bool] | None = None,
  starts_over: bool = False,
  resume: bool | None = None,
) -> Run:
  """The folder of a study, locked, and the same study as before.

  Args:
    config: its options.
    values: what ``config.json`` says.
    growing: what is no option and may change between its runs.
    data: by the name of a data set, digests of its splits.
    inside: the options that a run keeps from its beginning to its end.
    runs: from the folder as it is, those of its runs and whether each has ended
      well.
    finished: whether nothing is left to do; None: if all runs have ended.
    starts_over: whether everything is made anew each time.
    resume: of `mtljax.training.open_run`; None: what the options say.

  Raises:
    ConfigMismatchError: it is another study, it was begun with other versions,
      code or data, or a run that is half done was begun otherwise.
    LockedError: another process works on it.
  """
  ignore = (*options.changing(config), *growing)
  resume = config.resume if resume is None else resume
  known = identity(data or {})
  if starts_over:
    values = {**values, 'identity': known}
    return open_run(config.out, values, resume=resume, ignore=ignore)
  done, differing = False, {}
  if resume and config.out.is_dir():
    _rundir.lock_run(config.out)
    there = list(runs())
    done = all(x for _, x in there) if finished is None else finished()
    todo = [folder for folder, ended in there if not ended]
    differing = _inside_differences(config.out, todo, inside or {})
    if differing and not config.force:
      raise ConfigMismatchError(
        f'--out {config.out} has runs that are half done under other options: '
        f'{_rundir.in_words(differing)}: end them under those, add --force to '
        'go on under these (config.json will say so), or choose another --out'
      )
  return open_run(
    config.out,
    values,
    resume=resume,
    ignore=ignore,
    identity=known,
    force=config.force,
    finished=done,
    changed=differing,
  )


def _inside_differences(
  out: pathlib.Path, folders: Iterable[pathlib.Path], now: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
  found = {}
  for folder in folders:
    if not is_begun(folder):
      continue
    shown = folder.relative_to(out).as_posix()
    try:
      before = files.read_json(folder / files.RUN)['options']
      if not isinstance(before, dict):
        raise ValueError('its options are no object')
    except FileNotFoundError:
      continue  # an older version began it, and did not say
    except (ValueError, KeyError, TypeError) as error:
      raise ConfigMismatchError(
        f'{folder / files.RUN} is damaged ({error}): remove the folder '
        f'{folder} to do this run again'
      ) from error
    for name in sorted(before.keys() | now.keys()):
      if before.get(name) != now.get(name):
        there = before.get(name, 'absent'), now.get(name, 'absent')
        found[f'{name} of {shown}'] = there
  return found
