"""Preferences among tasks: where on the curve of trade-offs a run is to end.

A preference is a vector on the simplex, one entry a task. Methods take it as
``preference=``; which end of the curve an entry means is each paper's. For
`mtljax.fixed` and `mtljax.epo` a large entry asks for a small loss; for
`mtljax.pbi`, `mtljax.pmtl` and `mtljax.pmgda` it says where the losses are to
be, and `ray` turns one into the other; `mtljax.cosmos` has it as both. What
curves are worth is in `mtljax.diagnostics`: `hypervolume`, `r2`,
`non_dominated`; networks that take a preference are in `mtljax.models`.
"""

from mtljax.pareto._preferences import draw, grid, ray

__all__ = ['draw', 'grid', 'ray']
