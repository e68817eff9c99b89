"""Many devices: the mesh, and what of a training run lies where on it.

`jax.jit` runs a program where its arguments are: what is said here is how
parameters, optimizer, batch and per-task gradients are spread, and the compiler
puts in the communication. See ``docs/scaling.md`` for its amount.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mtljax import _labels, _validate
from mtljax.gradients._place import Place, as_entry, mesh_axes, without
from mtljax.gradients._pullback import LossFn, Pullback

Kind = Literal['data', 'fsdp', 'tensor']
KINDS = ('data', 'fsdp', 'tensor')
AXES = ('data', 'task', 'model')


def make_mesh(
  *, data: int | None = None, task: int = 1, model: int = 1
) -> Mesh:
  """All devices of all processes as a grid of ``data x task x model``.

  ``data`` is the outermost axis, so that the examples of a process stay with
  it, and ``model``, which has the most traffic, the innermost. The axes are of
  type `jax.sharding.AxisType.Auto`: the compiler completes what is left open.

  Args:
    data: devices along which the batch is split, and with FSDP the parameters;
      None: all that are left.
    task: devices along which the tasks' backward passes are split.
    model: devices along which single parameters are split (tensor parallel).

  Returns:
    A mesh of all devices.

  Raises:
    ValueError: the product is not the number of devices.

  Examples:
    >>> mesh = make_mesh()
    >>> mesh.axis_names, mesh.size == jax.device_count()
    (('data', 'task', 'model'), True)
  """
  task = _validate.integer('task', task, 1)
  model = _validate.integer('model', model, 1)
  if data is not None:
    data = _validate.integer('data', data, 1)
  found = jax.device_count()
  wanted = f'data={data}, task={task}, model={model}'
  if data is None:
    if found % (task * model):
      raise ValueError(
        f'{wanted}: task * model = {task * model} does not divide the {found} '
        'devices there are; choose factors of their number.'
      )
    data = found // (task * model)
  if data * task * model != found:
    raise ValueError(
      f'{wanted}: the product is {data * task * model}, and there are {found} '
      'devices; leave data=None for all that are left.'
    )
  return jax.make_mesh(
    (data, task, model), AXES, axis_types=(AxisType.Auto,) * 3
  )


@dataclasses.dataclass(frozen=True)
class Layout:
  """How a training run is spread over a mesh.

  ============ ===============================================================
  kind         the parameters
  ============ ===============================================================
  ``'data'``   whole on every device
  ``'fsdp'``   each split over ``data`` along its largest axis that divides;
               gathered where a pass uses it
  ``'tensor'`` each split over ``model`` along its last axis, if that divides
  ============ ===============================================================

  The batch is split over ``data`` along axis 0. Everything that has the shape
  of a parameter and its path, as moments have, lies as the parameter does. What
  has an axis more in front, as the gradients that some methods track have, lies
  as the per-task gradients do. The rest is whole everywhere: step, key,
  weights, a model's other state.

  The per-task gradients are split over ``data`` and ``task``, whatever the
  kind: they are the largest thing there is, and to split them takes less
  traffic than to sum them everywhere. With ``task`` devices each of these pulls
  back its part of the tasks first.

  Give it to `make_train_step` as ``layout``: its step then keeps the state
  where it is, and returns metrics that every process can read.

  Attributes:
    mesh: of `make_mesh`, or any with these axes.
    kind: see above.
    min_size: parameters of fewer elements are not split over ``data``; to
      gather 64 KiB takes less time than to start.
    rules: path patterns, as of `mtljax.label_params`, to the spec of parameters
      that are not to follow ``kind``; the first that matches counts.

  =============================  =================================
  case                           result
  =============================  =================================
  no axis divides                the parameter is whole everywhere
  a rule that no path matches    `ValueError`
  a rule's axis does not divide  `ValueError`
  a batch that does not divide   `ValueError`
  =============================  =================================

  Examples:
    >>> layout = Layout(make_mesh(), kind='fsdp')
    >>> shardings = layout.params({'w': jnp.ones((256, 128)), 'b': jnp.ones(8)})
    >>> shardings['b'].is_fully_replicated  # smaller than min_size
    True
  """

  mesh: Mesh
  kind: Kind = 'data'
  min_size: int = 2**14
  rules: Mapping[str, P] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    _validate.one_of('kind', self.kind, KINDS)
    size = _validate.integer('min_size', self.min_size, 0)
    object.__setattr__(self, 'min_size', size)
    missing = [name for name in AXES if name not in self.mesh.axis_names]
    if missing:
      raise ValueError(
        f'mesh has the axes {self.mesh.axis_names} and lacks {missing}; build '
        'it with make_mesh.'
      )

  @property
  def whole(self) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(self.mesh, P())

  def params(self, params: Any) -> Any:
    """A tree of `jax.sharding.NamedSharding`, one a parameter."""
    return self._tree(params, self._param_specs(params))

  def state(self, state: Any, params: Any | None = None) -> Any:
    """The shardings of a `TrainState`, or of any tree that goes with params.

    Args:
      state: arrays, or the shapes that `jax.eval_shape` gives.
      params: the parameters that the tree follows; None: ``state.params``.

    Returns:
      A tree like ``state`` of `jax.sharding.NamedSharding`.
    """
    params = state.params if params is None else params
    leaves = jax.tree_util.tree_leaves_with_path(params)
    by_path, by_shape = {}, {}
    for (path, leaf), own, row in zip(
      leaves, self._param_specs(params), self._row_specs(params), strict=True
    ):
      by_path[path] = jnp.shape(leaf), own, row
      by_shape.setdefault(jnp.shape(leaf), set()).add((own, row))

    def spec(path, leaf):
      shape = jnp.shape(leaf)
      suffixes = (path[i:] for i in range(len(path) + 1))
      suffix = next((s for s in suffixes if s in by_path), None)
      if suffix is not None:
        follows, own, row = by_path[suffix]
        if shape == follows:
          return own
        if follows and shape[1:] == follows:
          return P(None, *row)
      # Methods list what they track by number: then the shape has to tell.
      found = by_shape.get(shape[1:], ()) if len(shape) > 1 else ()
      if len(found) == 1 and math.prod(shape[1:]) >= self.min_size:
        return P(None, *next(iter(found))[1])
      return P()

    leaves, treedef = jax.tree_util.tree_flatten_with_path(state)
    return jax.tree.unflatten(
      treedef, [NamedSharding(self.mesh, spec(*leaf)) for leaf in leaves]
    )

  def batch(self, batch: Any) -> Any:
    """The shardings of a batch: axis 0 over ``data``, scalars whole.

    Raises:
      ValueError: an array's axis 0 does not divide.
    """
    parts = self.mesh.shape['data']

    def sharding(name, shape):
      if not shape:
        return self.whole
      if shape[0] % parts:
        raise ValueError(
          f'batch: its array {name!r} has {shape[0]} examples on axis 0, which '
          f'do not divide among data={parts} devices; make the batch a '
          f'multiple of {parts}.'
        )
      return NamedSharding(self.mesh, P('data'))

    leaves, treedef = jax.tree.flatten(batch)
    names = _labels.path_names(batch)
    return jax.tree.unflatten(
      treedef,
      [sharding(n, jnp.shape(x)) for n, x in zip(names, leaves, strict=True)],
    )

  def local_rows(self, batch_size: int) -> slice:
    """The rows of a batch that the devices of this process hold."""
    example = jax.ShapeDtypeStruct((batch_size,), jnp.float32)
    indices = self.batch(example).addressable_devices_indices_map(example.shape)
    ranges = [rows.indices(batch_size)[:2] for (rows,) in indices.values()]
    return slice(min(a for a, _ in ranges), max(b for _, b in ranges))

  def make(self, init_fn: Callable[[], Any]) -> Any:
    """The state that ``init_fn()`` returns, made in its place.

    One program makes it, so that no device and no process ever holds the whole.
    """
    shardings = self.state(jax.eval_shape(init_fn))
    return jax.jit(init_fn, out_shardings=shardings)()

  def keep(self, tree: Any, shardings: Any) -> Any:
    """Holds what a jitted program computes where it belongs."""
    if jax.tree.structure(shardings) == jax.tree.structure(self.whole):
      shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.lax.with_sharding_constraint(tree, shardings)

  def spread(self, part: Any) -> Any:
    """A part of a batch over ``data``, where it divides. Inside jit.

    It lies on some of the devices only, and left to itself the compiler may
    give all of it to all.
    """
    parts = self.mesh.shape['data']
    if any(x.shape[0] % parts for x in jax.tree.leaves(part)):
      return part
    return self.keep(part, self.batch(part))

  def gather(self, params: Any) -> Any:
    """The parameters as a pass uses them: not split over ``data``. Inside jit.

    Left to itself the compiler may move the activations instead.
    """
    specs = [
      without(spec, 'data', 'task') for spec in self._param_specs(params)
    ]
    return jax.lax.with_sharding_constraint(params, self._tree(params, specs))

  def place(self, params: Any, labels: Any) -> Place:
    """Where one task's gradients on the shared parameters lie. Inside jit."""
    flat = _labels.flatten_labels(labels, params)
    specs = [
      spec
      for spec, label in zip(self._row_specs(params), flat, strict=True)
      if label == _labels.SHARED
    ]
    return Place(self.mesh, specs)

  def update(self, direction: Any, params: Any, route: str) -> Any:
    """A method's update where the parameters are. Inside jit."""
    if route == 'jacobian':
      # Combined where the rows are, then gathered: not the other way round.
      split = self._tree(params, self._row_specs(params))
      direction = jax.lax.with_sharding_constraint(direction, split)
    return jax.lax.with_sharding_constraint(direction, self.params(params))

  def check_tasks(self, num_tasks: int, mode: str, loss_fn: LossFn) -> None:
    """Raises ValueError where the tasks cannot be split over ``task``."""
    parts = self.mesh.shape['task']
    if parts > 1 and isinstance(loss_fn, Sequence):
      raise ValueError(
        f'layout: a sequence of losses has a forward pass for each task, which '
        f'cannot be split over task={parts} devices; use task=1.'
      )
    if num_tasks % parts:
      raise ValueError(
        f'layout: the {num_tasks} tasks do not divide among task={parts} '
        'devices; make task= a divisor of their number.'
      )
    if parts > 1 and mode != 'vmap':
      raise ValueError(
        f"mode={mode!r}: with task={parts} devices the tasks' backward passes "
        "have to be one batched pass; use mode='vmap', or task=1."
      )

  def _tree(self, params: Any, specs: list[P]) -> Any:
    return jax.tree.unflatten(
      jax.tree.structure(params),
      [NamedSharding(self.mesh, spec) for spec in specs],
    )

  def _param_specs(self, params: Any) -> list[P]:
    names = _labels.path_names(params)
    shapes = [jnp.shape(x) for x in jax.tree.leaves(params)]
    found: list[P | None] = [None] * len(names)
    for pattern, spec in self.rules.items():
      for i in _labels.matches(pattern, names, 'rules'):
        if found[i] is None:
          self._check_rule(pattern, spec, names[i], shapes[i])
          found[i] = spec
    return [
      self._default(shape) if spec is None else spec
      for shape, spec in zip(shapes, found, strict=True)
    ]

  def _default(self, shape: tuple[int, ...]) -> P:
    if self.kind == 'fsdp':
      return self._over('data', shape, P())
    parts = self.mesh.shape['model']
    if self.kind == 'tensor' and shape and shape[-1] % parts == 0:
      return P(*[None] * (len(shape) - 1), 'model')
    return P()

  def _over(self, axis: str, shape: tuple[int, ...], spec: P) -> P:
    """The spec with a mesh axis more, on the largest array axis it divides."""
    entries = [*spec, *[None] * (len(shape) - len(spec))]
    if self.mesh.shape[axis] == 1 or axis in mesh_axes(spec):
      return P(*entries)
    sizes = []
    for size, entry in zip(shape, entries, strict=True):
      held = math.prod(self.mesh.shape[name] for name in mesh_axes([entry]))
      sizes.append(
        size // held if size % (held * self.mesh.shape[axis]) == 0 else 0
      )
    if math.prod(shape) >= self.min_size and max(sizes, default=0):
      i = sizes.index(max(sizes))
      entries[i] = as_entry((*mesh_axes([entries[i]]), axis))
    return P(*entries)

  def _row_specs(self, params: Any) -> list[P]:
    """The specs of one task's gradients."""
    specs = []
    for x, spec in zip(
      jax.tree.leaves(params), self._param_specs(params), strict=True
    ):
      over_data = self._over('data', jnp.shape(x), spec)
      specs.append(self._over('task', jnp.shape(x), over_data))
    return specs

  def _check_rule(
    self, pattern: str, spec: P, name: str, shape: tuple[int, ...]
  ) -> None:
    if len(spec) > len(shape):
      raise ValueError(
        f'rules[{pattern!r}]={spec} has {len(spec)} entries and parameter '
        f'{name!r} of shape {shape} has {len(shape)} axes.'
      )
    for size, entry in zip(shape, spec, strict=False):
      parts = math.prod(self.mesh.shape[axis] for axis in mesh_axes([entry]))
      if size % parts:
        raise ValueError(
          f'rules[{pattern!r}]={spec}: {entry!r} is {parts} devices, which do '
          f'not divide an axis of {size} of parameter {name!r}, shape {shape}.'
        )


def split_rows(pullback: Pullback, place: Place) -> Pullback:
  """The pullback with all tasks' gradients split alike. Inside jit."""

  def rows(passes, tasks=None):
    found = pullback.rows(passes, tasks)
    return [place.rows(i, leaf) for i, leaf in enumerate(found)]

  return dataclasses.replace(pullback, rows=rows)


class ShardedBatches(Iterator[Any]):
  """This process's rows of every batch, as parts of arrays of all processes.

  Each process reads its own rows and no others, and the step sees whole
  batches. The place in the data is the iterator's own, and says nothing of
  processes: what two of them saved, one can go on with.

  Args:
    batches: an iterator over trees of host arrays, of each batch's rows
      `Layout.local_rows`, as of ``data.make_train_iterator(..., rows=)``.
    layout: how the batches lie.
    batch_size: the rows of a whole batch.

  Examples:
    >>> layout = Layout(make_mesh())
    >>> rows = layout.local_rows(8)
    >>> batches = ShardedBatches(iter([jnp.arange(8)[rows]]), layout, 8)
    >>> next(batches).shape
    (8,)
  """

  def __init__(self, batches: Iterator[Any], layout: Layout, batch_size: int):
    self._batches = batches
    self._sharding = NamedSharding(layout.mesh, P('data'))
    self._size = batch_size

  def __next__(self) -> Any:
    return jax.tree.map(
      lambda x: jax.make_array_from_process_local_data(
        self._sharding, np.asarray(x), (self._size, *x.shape[1:])
      ),
      next(self._batches),
    )

  def get_state(self) -> Any:
    """The place in the data."""
    return self._batches.get_state()  # pyrefly: ignore[missing-attribute]

  def set_state(self, state: Any) -> None:
    """Goes to a place in the data."""
    self._batches.set_state(state)  # pyrefly: ignore[missing-attribute]
