"""Looking at a whole mesh: its products, whether the registry answers, and what the auditor has found."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.governance.findings import look
from headrace.governance.judge import FINDINGS
from headrace.schemas.errors import HeadraceError
from headrace.schemas.registry import Registry
from headrace.selfserve.status import MeshStatus, each_once
from headrace.selfserve.survey import Survey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.schemas.mesh import Mesh
    from headrace.selfserve.stack import ServerStatus
    from headrace.selfserve.status import ProductStatus

__all__ = ["Overview"]


class Overview:
    """Looks at a mesh as often as one likes; nothing is changed by it. Not for several threads.

    Args:
        mesh: the mesh in its environment.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._survey = Survey(mesh, mesh.all_products)
        self._counted: tuple[tuple[object, ...], Counter[str | None]] | None = None

    def look(self, servers: Sequence[ServerStatus]) -> MeshStatus:
        """Look once. What does not answer is noted, and a product's fault is kept with the product.

        Args:
            servers: the servers of the environment's stack, as they are.
        """
        look = self._survey.look()
        unasked, products = list(look.unasked), look.products
        found = None
        try:
            # Findings are read with it: where it hangs, it is waited for once.
            self._ask_registry()
            found = self._open_findings(products)
        except HeadraceError as error:
            # Whatever is wrong with the findings' own topic, subject or table: the mesh is shown without them.
            unasked.append(error)
        if found is not None:
            products = tuple(replace(each, open_findings=found[each.product]) for each in products)
        return MeshStatus(tuple(servers), products, each_once(unasked), None if found is None else found[None])

    def _ask_registry(self) -> None:
        with Registry(self._mesh.environment.registry_config()) as registry:
            registry.compatibility(self._mesh.product(FINDINGS).subject)

    def _open_findings(self, products: Sequence[ProductStatus]) -> Counter[str | None] | None:
        """Count the open findings by product; None if their topic or table is not there to be read.

        Raises:
            HeadraceError: why they cannot be read, or not all of them.
        """
        (own,) = [each for each in products if each.product == FINDINGS]
        if own.faults or own.lag is None:
            return None
        # They are what the table holds and what is behind it in the topic.
        state = (own.snapshot_id, own.lag.rows)
        if self._counted is None or self._counted[0] != state:
            read = look(self._mesh)
            if read.trouble is not None:
                # The table alone may lack what was opened since.
                raise read.trouble
            self._counted = (state, Counter(each.product for each in read.findings if each.open))
        return self._counted[1]
