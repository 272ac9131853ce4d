"""The hand-made networks of the tests, by exporter: size of the graph, checks, whether it is that
of the first exporter.

python -m benchmarks.exporters [part of a name ...]
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ngc.compiler import compile
from ngc.errors import NgcError
from ngc.proof import verify
from tests.networks.base import EXPORTERS
from tests.networks.export import export
from tests.networks.known_differences import KNOWN_DIFFERENCES
from tests.networks.same_graph import difference
from tests.networks.zoo import NETWORKS


def main() -> None:
    console = Console()
    names = [n for n in NETWORKS if not sys.argv[1:] or any(part in n for part in sys.argv[1:])]
    table = Table("network", "exporter", "nodes", "edges", "checks", "same graph")
    totals: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            paths = export(NETWORKS[name], Path(folder) / name)
            first = None
            for exporter, path in paths.items():
                where = f"{name}, {exporter}"
                try:
                    compilation = compile(path)
                    proof = verify(compilation)
                except NgcError as error:
                    failures.append(f"{where}: {error}")
                    table.add_row(name, exporter, "", "", "not compiled", "")
                    continue
                failures += [f"{where}: {c.name}, {c.detail}" for c in proof.checks if not c.passed]
                graph = compilation.graph()
                first = first if first is not None else graph
                passed = sum(check.passed for check in proof.checks)
                same = "yes" if not difference(first, graph) else "no"
                if (name, exporter) in KNOWN_DIFFERENCES:
                    same += " (known)"
                totals["files"] += 1
                totals["proven"] += passed == len(proof.checks)
                totals[same] += 1
                sizes = (str(compilation.plan.num_nodes), str(compilation.plan.num_edges))
                table.add_row(name, exporter, *sizes, f"{passed} of {len(proof.checks)}", same)
            for exporter in EXPORTERS:
                if exporter not in paths:
                    table.add_row(name, exporter, "", "", "cannot be exported", "")
    console.print(table)
    console.print(f"{len(names)} networks; " + ", ".join(f"{k}: {n}" for k, n in totals.items()))
    reasons = Counter(why for (name, _), why in KNOWN_DIFFERENCES.items() if name in names)
    for why, count in reasons.items():
        console.print(f"{count} known differences: {why}")
    for failure in failures:
        console.print(failure)


if __name__ == "__main__":
    main()
