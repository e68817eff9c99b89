"""Every notebook runs in its fast mode, and is as Colab and readers want it."""

import base64
import importlib
import io
import pathlib
import re

import nbformat
import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / 'colabs').glob('*.ipynb'))
BADGE = 'https://colab.research.google.com/github/mtljax/mtljax/blob/main/'
EACH = pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.name)


@pytest.fixture(scope='module')
def save():
  """The command beside the notebooks, which are no package."""
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / 'colabs'))
    yield importlib.import_module('save')


def read(path):
  return nbformat.read(path, as_version=4)


def code_of(path):
  return [cell for cell in read(path).cells if cell.cell_type == 'code']


def pictures(cell):
  return [
    np.asarray(Image.open(io.BytesIO(base64.b64decode(x.data['image/png']))))
    for x in cell.outputs
    if 'image/png' in x.get('data', {})
  ]


def test_there_are_notebooks():
  assert NOTEBOOKS


@EACH
def test_runs_in_fast_mode(path, tmp_path, save):
  tfds = tmp_path / 'tfds'
  notebook = save.run(
    read(path),
    tmp_path,
    fast=True,
    timeout=120,
    TFDS_DATA_DIR=str(tfds),
    PYTHONWARNINGS='default',
  )
  code = save.code_of(notebook)
  assert all(cell.execution_count for cell in code)
  errors = ''.join(save.printed(cell, 'stderr') for cell in code)
  assert not re.search(r'\w+Warning: ', errors), errors
  reads = any('data.load_' in cell.source for cell in code)
  assert tfds.exists() == reads


@EACH
def test_cells_have_outputs(path, save):
  code = code_of(path)
  assert [cell.execution_count for cell in code] == list(
    range(1, len(code) + 1)
  )
  for cell in code:
    kinds = {output.output_type for output in cell.outputs}
    assert kinds <= {'stream', 'display_data', 'execute_result'}
    assert not save.printed(cell, 'stderr')
    draws = re.search(r'^ *(plt\.show|draw)\(', cell.source, re.M)
    assert bool(pictures(cell)) == bool(draws)
    if re.search(r'^( {2})?print\(', cell.source, re.M):
      assert save.printed(cell)


@EACH
def test_outputs_are_those_of_this_code(path, save):
  notebook = read(path)
  found = notebook.metadata['mtljax']
  again = 'run python colabs/save.py'
  assert found['code'] == save.code_hash(notebook), again
  assert notebook.cells[0].source.endswith(save.FORMS[found['form']]), again


@EACH
def test_outputs_are_small_and_name_no_place(path, save):
  assert path.stat().st_size <= save.LIMIT
  for cell in code_of(path):
    assert not save.places(save.shown(cell))
    assert not re.search(r'/(home|root|tmp|Users|usr|opt)/', save.shown(cell))
    assert 'execution' not in cell.metadata


@EACH
def test_pictures_show_something(path):
  found = [picture for cell in code_of(path) for picture in pictures(cell)]
  assert found
  for picture in found:
    height, width = picture.shape[:2]
    assert 150 <= height <= 800 and 250 <= width <= 1600
    assert len(np.unique(picture.reshape(height * width, -1), axis=0)) > 10


def test_only_what_is_printed_and_drawn_is_saved(save):
  source = nbformat.v4.new_notebook(
    cells=[
      nbformat.v4.new_markdown_cell('# Title'),
      nbformat.v4.new_code_cell('print(1)'),
    ]
  )
  done = nbformat.v4.new_notebook(
    cells=[
      nbformat.v4.new_code_cell(
        'print(1)',
        execution_count=1,
        metadata={'execution': {'iopub.status.idle': '2026-01-01'}},
        outputs=[
          nbformat.v4.new_output('stream', name='stdout', text='1\n'),
          nbformat.v4.new_output('stream', name='stderr', text='logged\n'),
        ],
      )
    ]
  )
  for form in ('fast', 'full'):
    kept = save.saved(source, done, form)
    title, cell = kept.cells
    assert title.source == '# Title' + save.FORMS[form]
    assert kept.metadata['mtljax']['form'] == form
    assert [output.text for output in cell.outputs] == ['1\n']
    assert cell.metadata == {}
  place = nbformat.v4.new_output('stream', name='stdout', text=f'at {ROOT}/x')
  done.cells[0].outputs = [place]
  with pytest.raises(ValueError, match='places of this machine'):
    save.saved(source, done, 'full')
  big = nbformat.v4.new_output('stream', name='stdout', text='x' * 400_000)
  done.cells[0].outputs = [big]
  with pytest.raises(ValueError, match='of at most 400,000'):
    save.saved(source, done, 'full')


@EACH
def test_metadata(path):
  metadata = read(path).metadata
  assert metadata.kernelspec.name == 'python3'
  assert metadata.accelerator


@EACH
def test_first_cells(path):
  title, install, devices = read(path).cells[:3]
  assert title.cell_type == 'markdown'
  assert title.source.startswith('# ')
  assert f'({BADGE}{path.relative_to(ROOT).as_posix()})' in title.source
  guard = "if 'google.colab' in sys.modules:\n"
  before, found, after = install.source.partition(guard)
  assert found
  assert 'pip' not in before
  assert all(line.startswith('  ') for line in after.splitlines())
  assert 'jax.devices()' in devices.source


@EACH
def test_imports_only_public_names(path):
  for cell in read(path).cells:
    if cell.cell_type == 'code':
      assert 'mtljax._' not in cell.source
      assert 'import _' not in cell.source
