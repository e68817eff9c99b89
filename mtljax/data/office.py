"""Office-31 and Office-Home: the same objects in photographs of several kinds.

A task is a domain, with images of its own and all the classes: three domains of
31 classes (4,110 images), or four of 65 (15,588). The files are those that the
authors give out, in the tfds directory:

* ``downloads/manual/office31``: ``amazon``, ``dslr`` and ``webcam``, in each
  ``images/<class>/<image>``;
* ``downloads/manual/office_home``: ``Art``, ``Clipart``, ``Product`` and
  ``Real World`` (or ``Real_World``), in each ``<class>/<image>``.

60 % of each class are trained on, 20 % are for validation, 20 % for testing,
drawn by the seed. LibMTL has drawn them once, and gives out lists of names,
``<domain>_<train|val|test>.txt``; put into a folder ``data_txt`` beside the
domains they are what counts.

References:
  Saenko et al., Adapting Visual Category Models to New Domains, 2010.
  Venkateswara et al., Deep Hashing Network for Unsupervised Domain Adaptation,
  2017, https://arxiv.org/abs/1706.07522
  Lin and Zhang, LibMTL: A Python Library for Multi-Task Learning, 2023,
  https://arxiv.org/abs/2203.14338
"""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from mtljax import _validate
from mtljax.data import _photographs, _sources

_SUFFIXES = ('.jpg', '.jpeg', '.png')
_LISTS = 'data_txt'
_SHARES = (0.6, 0.2, 0.2)


class _Office(NamedTuple):
  """One of the two data sets.

  Attributes:
    title: its name.
    url: where it is given out.
    domains: names of its domains.
    classes: how many classes there are in each.
    inside: the folder of a domain that has the classes.
  """

  title: str
  url: str
  domains: tuple[str, ...]
  classes: int
  inside: str = ''


_OFFICES = {
  'office31': _Office(
    title='Office-31',
    url='https://faculty.cc.gatech.edu/~judy/domainadapt/',
    domains=('amazon', 'dslr', 'webcam'),
    classes=31,
    inside='images',
  ),
  'office_home': _Office(
    title='Office-Home',
    url='https://www.hemanthdv.org/officeHomeDataset.html',
    domains=('Art', 'Clipart', 'Product', 'Real_World'),
    classes=65,
  ),
}
#: The domains of each data set.
OFFICE_DOMAINS = {name: office.domains for name, office in _OFFICES.items()}


def load_office(
  name: str,
  *,
  split: str,
  size: int = 224,
  seed: int = 0,
  data_dir: str | os.PathLike[str] | None = None,
  progress: Callable[[str], object] | None = None,
) -> dict[str, np.ndarray]:
  """Reads one split of Office-31 or Office-Home into memory.

  Args:
    name: ``'office31'`` or ``'office_home'``.
    split: ``'train'``, ``'validation'`` or ``'test'``.
    size: pixels of a side that images are shrunk to.
    seed: of the split, where there are no lists, and of the order.
    data_dir: the tfds directory; None is that of tfds
      (``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``).
    progress: called with a line of text before anything slow is done.

  Returns:
    ``image``, uint8, shape ``(N, size, size, 3)``; ``domain``, int32, shape
    ``(N,)``, a place in ``OFFICE_DOMAINS[name]``; and ``label``, int32, shape
    ``(N,)``, a place in the sorted names of the classes. Rows are of the
    domains in turn as long as they last, in random order.

  Raises:
    ValueError: an argument is out of range, a domain has other classes than it
      should, or a file is no image, or no list; it is named.
    FileNotFoundError: a folder or a listed file is missing; the message says
      where to get it and where to put it.

  Example:
    >>> load_office('office31', split='train', data_dir='/nowhere')
    Traceback (most recent call last):
    FileNotFoundError: /nowhere/downloads/manual/office31/amazon/images is ...
  """
  _validate.one_of('name', name, _OFFICES)
  _validate.one_of('split', split, _sources.SPLITS)
  _validate.integer('size', size, 1)
  _validate.integer('seed', seed, 0)
  office = _OFFICES[name]
  root = tfds.core.constants.DATA_DIR if data_dir is None else data_dir
  folder = pathlib.Path(root).expanduser() / 'downloads' / 'manual' / name
  files: list[pathlib.Path] = []
  domains, labels, ranks = [], [], []
  names: list[str] = []
  for number, domain in enumerate(office.domains):
    classes = _classes(folder, domain, office)
    names = names or sorted(classes)
    if sorted(classes) != names:
      odd = sorted(set(classes) ^ set(names))[0]
      raise ValueError(
        f'{folder}: the domains {office.domains[0]} and {domain} have unlike '
        f'classes ({odd!r} is in one of them only): {_advice(office, folder)}'
      )
    rng = np.random.default_rng([seed, number])
    own = _of_split(folder, domain, split, classes, seed, office)
    chosen = [own[i] for i in rng.permutation(len(own))]
    files += [path for path, _ in chosen]
    labels += [names.index(label) for _, label in chosen]
    domains += [number] * len(chosen)
    ranks += range(len(chosen))
  if progress is not None:
    progress(f'Reading {len(files):,} images of {office.title} ({split}).')
  in_turn = np.lexsort((domains, ranks))
  images = np.empty((len(files), size, size, 3), np.uint8)

  def put(place: int) -> None:
    path = files[in_turn[place]]
    images[place] = _photographs.shrunk(
      path, size, str(path), _advice(office, folder)
    )

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    list(pool.map(put, range(len(files))))
  return {
    'image': images,
    'domain': np.array(domains, np.int32)[in_turn],
    'label': np.array(labels, np.int32)[in_turn],
  }


def _advice(office: _Office, folder: pathlib.Path) -> str:
  listed = ', '.join(office.domains)
  return (
    f'get {office.title} from {office.url} and put its folders {listed} into '
    f'{folder}.'
  )


def _classes(
  folder: pathlib.Path, domain: str, office: _Office
) -> dict[str, list[pathlib.Path]]:
  """The images of each class of a domain, in the order of their names."""
  root = _domain_folder(folder, domain) / office.inside
  if not root.is_dir():
    raise FileNotFoundError(f'{root} is not there: {_advice(office, folder)}')
  found = {
    place.name: sorted(
      x for x in place.iterdir() if x.suffix.lower() in _SUFFIXES
    )
    for place in sorted(root.iterdir())
    if place.is_dir()
  }
  if len(found) != office.classes:
    raise ValueError(
      f'{root} has {len(found)} folders of classes, not {office.classes}: '
      f'{_advice(office, folder)}'
    )
  for label, paths in found.items():
    if not paths:
      raise ValueError(
        f'{root / label} has no image ({", ".join(_SUFFIXES)}): '
        f'{_advice(office, folder)}'
      )
  return found


def _domain_folder(folder: pathlib.Path, domain: str) -> pathlib.Path:
  """Of the two ways in which ``Real_World`` is written, the one there is."""
  spaced = folder / domain.replace('_', ' ')
  return spaced if spaced.is_dir() else folder / domain


def _of_split(
  folder: pathlib.Path,
  domain: str,
  split: str,
  classes: dict[str, list[pathlib.Path]],
  seed: int,
  office: _Office,
) -> list[tuple[pathlib.Path, str]]:
  """The images of a split of a domain, and their classes."""
  everything = [(x, label) for label, paths in classes.items() for x in paths]
  if (folder / _LISTS).is_dir():
    return _listed(folder, domain, split, everything, office)
  labels = np.array([label for _, label in everything])
  parts = _sources.stratified(labels, _SHARES, seed)
  return [everything[i] for i in parts[_sources.SPLITS.index(split)]]


def _listed(folder, domain, split, everything, office):
  """Those that the list of the split names, one a line: path, space, number."""
  short = 'val' if split == 'validation' else split
  path = folder / _LISTS / f'{domain}_{short}.txt'
  if not path.is_file():
    raise FileNotFoundError(
      f'{path} is not there, as the other lists of LibMTL are: put '
      f'examples/office/data_txt of it into {folder}, or remove '
      f'{folder / _LISTS} for a split of our own.'
    )
  known = {
    (image.parent.name, image.name): (image, label)
    for image, label in everything
  }
  found = []
  for line, text in enumerate(path.read_text().splitlines(), 1):
    if not text.strip():
      continue
    listed = pathlib.PurePosixPath(text.rpartition(' ')[0])
    key = (listed.parent.name, listed.name)
    if key not in known:
      raise FileNotFoundError(
        f'{path}, line {line}, names {str(listed)!r}, which is no image of '
        f'{domain}: {_advice(office, folder)}'
      )
    found.append(known[key])
  if not found:
    raise ValueError(f'{path} is empty, where it should name images.')
  return found
