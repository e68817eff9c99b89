"""Mixtures of experts, for suites of rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import flax.linen as nn

from experiments.lab.suite import Network, Widths, names
from mtljax import models


def networks(
  encoder: nn.Module | None = None, *, expert_size: int = 4, tower: int = 8
) -> Mapping[str, Network]:
  """``mmoe``, ``cgc``, ``ple`` and ``dselect_k``, each of about eight experts.

  The widths of a command are those of their parts: ``hidden_sizes`` of each
  expert, ``head_sizes`` of each tower; where they are not named, one layer of
  ``expert_size`` and of ``tower`` units.

  Args:
    encoder: as in `mtljax.models.mmoe`.
    expert_size: units of an expert.
    tower: units of a tower.
  """

  def network(make: Callable[..., models.MultiTaskModel], **kwargs) -> Network:
    def build(tasks, widths):
      plain = Widths()
      named = widths.hidden_sizes != plain.hidden_sizes
      return make(
        names(tasks),
        num_classes=[task.num_outputs for task in tasks],
        expert_sizes=widths.hidden_sizes if named else (expert_size,),
        head_sizes=widths.head_sizes or (tower,),
        encoder=encoder,
        **kwargs,
      )

    return Network(make=build)

  return {
    'mmoe': network(models.mmoe, num_experts=8),
    'cgc': network(models.cgc, num_shared=4, num_own=2),
    'ple': network(models.ple, num_levels=2, num_shared=4, num_own=2),
    'dselect_k': network(models.dselect_k, num_experts=8, num_selected=2),
  }
