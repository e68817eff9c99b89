"""Mixtures of experts, for suites of rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from experiments.lab.suite import Network, names
from mtljax import models


def experts(
  encoder: nn.Module | None = None, *, expert_size: int = 4, tower: int = 8
) -> Mapping[str, Network]:
  """``mmoe``, ``cgc``, ``ple`` and ``dselect_k``, each of about eight experts.

  Where the widths of a command do not name ``expert_sizes`` or ``head_sizes``,
  there is one layer of ``expert_size`` or of ``tower`` units.

  Args:
    encoder: as in `mtljax.models.mmoe`.
    expert_size: units of an expert.
    tower: units of a tower.
  """

  def network(make: Callable[..., Any], **kwargs: Any) -> Network:
    def build(tasks, widths):
      return make(
        names(tasks),
        num_classes=[task.num_outputs for task in tasks],
        expert_sizes=widths.expert_sizes or (expert_size,),
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
