"""The rooms of the experiments: imports, names, and the suite of the page."""

import ast
import collections
import csv
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
HERE = ROOT / 'experiments'
#: What the modules of a room may import; commands may import all.
MAY = {
  'report': {'report'},
  'lab': {'lab', 'report'},
  'suites': {'suites', 'lab'},
  'studies': {'suites', 'lab', 'report'},
}
FILES = sorted(HERE.rglob('*.py'))
SMALL = (
  '--data.num-train 64 --data.num-validation 32 --data.num-test 32 '
  '--batch-size 16 --seeds 1 --epochs 1 --no-progress'
).split()


def imports(path):
  """Dotted names of everything in `experiments` that a file imports."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def ours(path):
  return [
    x.split('.')[1:] for x in imports(path) if x.startswith('experiments')
  ]


def room(path):
  return path.relative_to(HERE).parts[0]


def test_imports_go_one_way():
  wrong = []
  for path in FILES:
    for parts in ours(path):
      here = path.relative_to(HERE).parts
      if here[0] not in MAY:
        continue
      same_study = here[0] == parts[0] == 'studies' and here[1] == parts[1]
      if parts[0] not in MAY[here[0]] and not same_study:
        wrong.append((path.relative_to(ROOT).as_posix(), '.'.join(parts)))
  assert wrong == []


def test_lab_and_studies_name_no_suite():
  wrong = [
    (path.name, parts)
    for path in FILES
    if room(path) in ('lab', 'studies')
    for parts in ours(path)
    if parts[0] == 'suites' and len(parts) > 2
  ]
  assert wrong == []


def test_no_private_name_of_another_room_is_imported():
  wrong = [
    (path.name, parts)
    for path in FILES
    for parts in ours(path)
    if any(part.startswith('_') for part in parts)
  ]
  assert wrong == []


def test_no_two_public_classes_share_a_name():
  found = collections.defaultdict(list)
  for path in FILES:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
        found[node.name].append(path.name)
  assert {name: x for name, x in found.items() if len(x) > 1} == {}


def test_no_prefix_stands_for_a_folder():
  for folder in {path.parent for path in FILES} - {HERE}:
    stems = [path.stem for path in folder.glob('*.py')]
    heads = collections.Counter(x.partition('_')[0] for x in stems if '_' in x)
    assert all(count == 1 for head, count in heads.items() if head), folder


def test_files_are_short():
  long = {
    p.name: n for p in FILES if (n := len(p.read_text().splitlines())) > 500
  }
  assert long == {}
  commands = [p for p in HERE.glob('*.py') if p.stem != '__init__']
  assert all(len(p.read_text().splitlines()) < 100 for p in commands)


def closure(module):
  code = (
    f'import sys, {module}\n'
    "print(*(x for x in sys.modules if x.split('.')[0] == 'experiments'))"
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.split()


def test_toy_pulls_in_little():
  assert len(closure('experiments.studies.toy.study')) <= 15


@pytest.mark.parametrize(
  'name', sorted(p.stem for p in HERE.glob('*.py') if p.stem[0] != '_')
)
def test_every_command_says_what_it_is(name):
  source = (HERE / f'{name}.py').read_text()
  assert f'python -m experiments.{name}' in source
  assert f'`{name}' in (HERE / 'README.md').read_text()


def test_the_suite_of_the_page_is_compared(tmp_path):
  """As it is printed, in a module of one's own."""
  page = (HERE / 'README.md').read_text()
  (source,) = re.findall(r'```python\n(.*?)```', page, flags=re.DOTALL)
  assert len(source.splitlines()) <= 120
  (tmp_path / 'own').mkdir()
  (tmp_path / 'own' / 'numbers.py').write_text(source)

  def call(name, *args):
    out = tmp_path / name
    done = subprocess.run(
      [sys.executable, '-m', f'experiments.{name}', '--out', str(out), *args]
      + SMALL,
      cwd=ROOT,
      env=os.environ | {'PYTHONPATH': f'{ROOT}{os.pathsep}{tmp_path}'},
      capture_output=True,
      text=True,
      check=False,
      timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with (out / 'results.csv').open() as file:
      return list(csv.DictReader(file)), done.stdout

  rows, text = call('compare', '--suite', 'own.numbers', '--methods', 'cagrad')
  assert [row['method'] for row in rows] == [
    'single_sum',
    'single_sign',
    'cagrad',
  ]
  assert all(row['status'] == 'ok' for row in rows)
  assert 'mse sum' in text
  # Another network in a file of one's own is another run.
  config = json.loads((tmp_path / 'compare' / 'config.json').read_text())
  code = config['identity']['data']['numbers']['code']
  assert code == hashlib.sha256(source.encode()).hexdigest()
  rows, _ = call('conflict_study', '--suite', 'own.numbers')
  assert {row['method'] for row in rows} == {
    'numbers.shared_heavy',
    'numbers.head_heavy',
  }
