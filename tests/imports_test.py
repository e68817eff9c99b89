"""What importing costs, and which way imports run."""

import ast
import pathlib
import subprocess
import sys

import mtljax

ROOT = pathlib.Path(mtljax.__file__).parent
LAYERS = [
  {
    '_types',
    '_tree',
    '_labels',
    '_params',
    '_validate',
    '_jaxprs',
    '_files',
  },
  {'solvers'},
  {'weightings'},
  {'aggregators', 'gradients'},
  {'contrib', 'sharpness', 'optimizers'},
  {'pareto'},
  {'_catalog'},
  {'metrics', 'models', 'data', 'merging'},
  {'training'},
]
ABOVE_ALL = {'diagnostics': {'training'}}  # everything but these
CORE = {'jax', 'optax', 'chex', 'numpy', 'mtljax'}
HEAVY = ('flax', 'orbax', 'grain', 'tensorflow', 'tensorflow_datasets', 'PIL')


def _imports(path: pathlib.Path) -> set[str]:
  """Dotted names of everything the file imports, at any level."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      module = node.module or ''
      names |= {f'{module}.{alias.name}' for alias in node.names}
  return names


def _part(path: pathlib.Path) -> str:
  return path.relative_to(ROOT).parts[0].removesuffix('.py')


def _modules() -> list[pathlib.Path]:
  return [p for p in ROOT.rglob('*.py') if p != ROOT / '__init__.py']


def _rank(part: str) -> int:
  return next(i for i, layer in enumerate(LAYERS) if part in layer)


def test_every_module_belongs_to_a_layer():
  known = set().union(*LAYERS) | set(ABOVE_ALL)
  assert {_part(p) for p in _modules()} <= known


def test_imports_run_one_way():
  wrong = []
  for path in _modules():
    part = _part(path)
    for name in _imports(path):
      pieces = name.split('.')
      if pieces[0] != 'mtljax':
        assert pieces[0] != 'experiments', path
        continue
      other = pieces[1] if len(pieces) > 1 else ''
      if (
        other == part
        or not (ROOT / other).exists()
        and not (ROOT / f'{other}.py').exists()
      ):
        continue
      if part in ABOVE_ALL:
        allowed = other not in ABOVE_ALL[part]
      else:
        allowed = other not in ABOVE_ALL and (
          _rank(other) < _rank(part)
          or _rank(part) == 0
          or {part, other} == {'gradients', 'aggregators'}
        )
      if not allowed:
        wrong.append(f'{path.relative_to(ROOT)} imports {name}')
  assert not wrong, wrong


def test_core_imports_only_jax_optax_chex():
  core = set().union(*LAYERS[:5])
  wrong = []
  for path in _modules():
    if _part(path) not in core:
      continue
    for name in _imports(path):
      top = name.split('.')[0]
      if top not in CORE and top not in sys.stdlib_module_names:
        wrong.append(f'{path.relative_to(ROOT)} imports {name}')
  assert not wrong, wrong


def test_only_one_file_imports_orbax():
  users = [
    str(p.relative_to(ROOT))
    for p in _modules()
    if any(n.split('.')[0] == 'orbax' for n in _imports(p))
  ]
  assert users == ['training/disk/checkpoint.py']


def test_import_mtljax_loads_nothing_heavy():
  code = (
    'import sys, mtljax\nprint(sorted({m.split(".")[0] for m in sys.modules}))'
  )
  out = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  loaded = ast.literal_eval(out.stdout)
  assert not set(HEAVY) & set(loaded)


def test_no_file_is_too_long():
  long = {
    str(p): n
    for p in [*ROOT.rglob('*.py'), *(ROOT.parent / 'experiments').rglob('*.py')]
    if (n := len(p.read_text().splitlines())) > 500
  }
  assert not long
