"""Runs the notebooks, and saves them with their outputs.

  python colabs/save.py                      # all of them
  python colabs/save.py quickstart scale     # two
  python colabs/save.py --fast molecules     # its fast form, of a few steps

A notebook runs in a process and a folder of its own, as in Colab; data sets are
those of ``TFDS_DATA_DIR``. Saved are what it prints and draws, a line in its
first cell on the form that ran, and in its metadata that form and a hash of the
code. What is logged is left out; outputs that name a place of this machine are
refused.
"""

from __future__ import annotations

import argparse
import base64
import copy
import hashlib
import io
import os
import pathlib
import platform
import re
import sys
import tempfile
from collections.abc import Sequence

import nbclient
import nbformat
from nbformat import NotebookNode
from PIL import Image

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
LIMIT = 400_000  # bytes of a notebook
NOTE = '\n\nThe outputs saved here are '
#: How the first cell ends, by the form of a notebook that ran.
FORMS = {
  'full': f'{NOTE}those of a whole run on a CPU (`python colabs/save.py`).',
  'fast': f'{NOTE}those of a few steps on little data, no results (`--fast`).',
}


def read(path: pathlib.Path) -> NotebookNode:
  """A notebook in the one format that is used here."""
  return nbformat.read(path, as_version=4)


def code_of(notebook: NotebookNode) -> list[NotebookNode]:
  """The cells that run."""
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def printed(cell: NotebookNode, name: str = 'stdout') -> str:
  """What a cell wrote to one of its streams."""
  return ''.join(
    output.text
    for output in cell.outputs
    if output.output_type == 'stream' and output.name == name
  )


def code_hash(notebook: NotebookNode) -> str:
  """Of the sources of all code cells, in their order."""
  sources = '\0'.join(cell.source for cell in code_of(notebook))
  return hashlib.sha256(sources.encode()).hexdigest()


def run(
  notebook: NotebookNode,
  folder: pathlib.Path,
  *,
  fast: bool,
  timeout: int | None = None,  # seconds a cell
  **env: str,
) -> NotebookNode:
  """A copy of the notebook after a run in a folder; raises as a cell does."""
  notebook = copy.deepcopy(notebook)
  helpers = str(ROOT / 'tests' / 'helpers')  # raw data for the fast forms
  client = nbclient.NotebookClient(
    notebook,
    timeout=timeout,
    kernel_name='python3',
    resources={'metadata': {'path': str(folder)}},
    coalesce_streams=True,
    record_timing=False,
  )
  client.execute(
    env={
      **os.environ,
      'MTLJAX_FAST': '1' if fast else '0',
      'IPYTHONDIR': str(folder / 'ipython'),
      'PYTHONPATH': os.pathsep.join(
        [str(ROOT), helpers, *filter(None, sys.path)]
      ),
      **env,
    }
  )
  return notebook


def shown(cell: NotebookNode) -> str:
  """All that a cell prints, and its result as text."""
  results = (x.data for x in cell.outputs if 'data' in x)
  return printed(cell) + ''.join(x.get('text/plain', '') for x in results)


def places(text: str) -> list[str]:
  """The places of this machine that a text names."""
  home = str(pathlib.Path.home())
  paths = [str(ROOT), home, tempfile.gettempdir(), platform.node()]
  return [x for x in paths if re.search(rf'(?<!\w){re.escape(x)}(?!\w)', text)]


def small(picture: str) -> str:
  """A PNG in 256 colours, which is a third of its size."""
  whole = Image.open(io.BytesIO(base64.b64decode(picture))).convert('RGB')
  kept = io.BytesIO()
  # Rare colours, such as those of a legend, stay as they are.
  reduced = whole.quantize(
    256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
  )
  reduced.save(kept, format='png', optimize=True)
  return base64.b64encode(kept.getvalue()).decode()


def saved(source: NotebookNode, done: NotebookNode, form: str) -> NotebookNode:
  """The source with the outputs of a run of it."""
  for cell, ran in zip(code_of(source), code_of(done), strict=True):
    cell.execution_count = ran.execution_count
    cell.outputs = [
      output
      for output in ran.outputs
      if output.output_type != 'stream' or output.name == 'stdout'
    ]
    for data in (output.get('data', {}) for output in cell.outputs):
      if 'image/png' in data:
        data['image/png'] = small(data['image/png'])
  title = source.cells[0]
  title.source = title.source.partition(NOTE)[0] + FORMS[form]
  source.metadata['mtljax'] = {'code': code_hash(source), 'form': form}
  text = ''.join(shown(cell) for cell in code_of(source))
  if found := places(text):
    raise ValueError(f'outputs name places of this machine: {found}')
  if (size := len(nbformat.writes(source))) > LIMIT:
    raise ValueError(f'{size:,} bytes, of at most {LIMIT:,}')
  return source


def main(args: Sequence[str] | None = None) -> None:
  """Runs and saves what the command line names."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  names = sorted(path.stem for path in HERE.glob('*.ipynb'))
  parser.add_argument('names', nargs='*', metavar='NAME', help=', '.join(names))
  parser.add_argument('--fast', action='store_true', help='a few steps only')
  options = parser.parse_args(args)
  if unknown := sorted(set(options.names) - set(names)):
    parser.error(f'no such notebook: {unknown}; there are {names}')
  for name in options.names or names:
    path = HERE / f'{name}.ipynb'
    source = read(path)
    print(name, flush=True)
    with tempfile.TemporaryDirectory() as folder:
      place = pathlib.Path(folder)
      env = {'TFDS_DATA_DIR': str(place / 'tfds')} if options.fast else {}
      done = run(source, place, fast=options.fast, **env)
    form = 'fast' if options.fast else 'full'
    nbformat.write(saved(source, done, form), path)


if __name__ == '__main__':
  main()
