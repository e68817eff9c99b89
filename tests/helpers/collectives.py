"""What a compiled program moves between devices."""

import re


def collectives(compiled):
  """``(kind, [shape, ...])`` of each, in the text of the compiled program."""
  pattern = re.compile(
    r'= (\(.*?\)|\S+) (all-reduce|all-gather|all-to-all|reduce-scatter|'
    r'collective-permute)\('
  )
  return [
    (
      match[2],
      [
        [int(n) for n in shape.split(',') if n]
        for shape in re.findall(r'\w+\[([\d,]*)\]', match[1])
      ],
    )
    for match in pattern.finditer(compiled.as_text())
  ]
