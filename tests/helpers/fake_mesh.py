"""A mesh without devices."""


class FakeMesh:
  """Names and sizes, which is all that is counted, and specs are made of."""

  axis_names = ('data', 'task', 'model')

  def __init__(self, data=1, task=1, model=1):
    self.shape = {'data': data, 'task': task, 'model': model}
