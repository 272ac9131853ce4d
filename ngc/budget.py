"""How much a model may ask for. Checked before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ngc.errors import BudgetError


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on what one compilation may use.

    ``max_elements``: entries of one tensor; of all initializers together; of all constants
    evaluated on the way together. ``max_file_bytes``: the model file, and its external data.
    ``max_nodes``: nodes of the model with its functions inlined, and steps of the lowering
    (a node in a loop counts once per trip). ``max_work``: multiply-adds of one evaluated node.
    """

    max_elements: int = 2**28
    max_file_bytes: int = 2**33
    max_nodes: int = 200_000
    max_work: int = 2**32

    def afford(self, shape: Sequence[int], *, where: str = "", what: str = "a tensor") -> int:
        """Number of entries of the shape; raises if they are too many."""
        count = math.prod(shape)
        # An empty tensor may not have an axis beyond the budget either: numpy refuses those.
        if max(count, *shape, 0) > self.max_elements:
            sizes = "x".join(str(n) for n in shape) or "scalar"
            raise BudgetError(
                f"{what} of {sizes} entries is over the budget of {self.max_elements:,} elements",
                where=where,
                hint="a larger budget (max_elements), if the model is to be trusted",
            )
        return count

    def afford_total(self, count: int, *, where: str = "", what: str) -> None:
        """Raises if ``count`` entries in all are too many."""
        if count > self.max_elements:
            raise BudgetError(
                f"{what} hold {count:,} entries, over the budget of {self.max_elements:,}",
                where=where,
                hint="a larger budget (max_elements), if the model is to be trusted",
            )

    def afford_nodes(self, count: int, *, where: str = "", what: str = "the model") -> None:
        """Raises if ``count`` nodes or steps are too many."""
        if count > self.max_nodes:
            raise BudgetError(
                f"{what} takes more than {self.max_nodes:,} nodes",
                where=where,
                hint="a larger budget (max_nodes), if the model is to be trusted",
            )


DEFAULT = Budget()
