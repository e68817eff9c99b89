"""Every notebook runs in its fast mode, and is as Colab wants it."""

import os
import pathlib
import re
import sys

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / 'colabs').glob('*.ipynb'))
BADGE = 'https://colab.research.google.com/github/mtljax/mtljax/blob/main/'
EACH = pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.name)


def read(path):
  return nbformat.read(path, as_version=4)


def test_there_are_notebooks():
  assert NOTEBOOKS


@EACH
def test_runs_in_fast_mode(path, tmp_path):
  environment = {
    **os.environ,
    'MTLJAX_FAST': '1',
    'TFDS_DATA_DIR': str(tmp_path / 'tfds'),
    'IPYTHONDIR': str(tmp_path / 'ipython'),
    'PYTHONPATH': os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
    'PYTHONWARNINGS': 'default',
  }
  notebook = read(path)
  client = nbclient.NotebookClient(
    notebook,
    timeout=120,
    kernel_name='python3',
    resources={'metadata': {'path': str(tmp_path)}},
  )
  client.execute(env=environment)
  code = [cell for cell in notebook.cells if cell.cell_type == 'code']
  assert all(cell.execution_count for cell in code)
  errors = ''.join(
    output.text
    for cell in code
    for output in cell.outputs
    if output.output_type == 'stream' and output.name == 'stderr'
  )
  assert not re.search(r'\w+Warning: ', errors), errors
  reads = any('data.load_' in cell.source for cell in code)
  assert (tmp_path / 'tfds').exists() == reads


@EACH
def test_is_committed_without_outputs(path):
  for cell in read(path).cells:
    if cell.cell_type == 'code':
      assert not cell.outputs
      assert cell.execution_count is None


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
