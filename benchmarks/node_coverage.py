"""How many of ONNX's single-operator test cases compile and agree, and which operators do not.

python -m benchmarks.node_coverage
"""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table

from tests.passes.lower.node_cases import AGREES, FAILED, REFUSED, Outcome, outcomes

FORMS = {"inputs": "every tensor an input", "frozen": "all but the first initializers"}


def main() -> None:
    console = Console()
    found = {form: list(outcomes(form)) for form in FORMS}
    table = Table("form", "cases", AGREES, REFUSED, FAILED, title="cases of onnx.backend.test")
    for form, title in FORMS.items():
        count = Counter(outcome.status for outcome in found[form])
        table.add_row(title, str(len(found[form])), *(str(count[s]) for s in _statuses()))
    either = _best([outcome for form in FORMS for outcome in found[form]])
    count = Counter(either.values())
    table.add_row("in either form", str(len(either)), *(str(count[s]) for s in _statuses()))
    console.print(table)
    console.print(_refusals(found))
    for form in FORMS:
        for outcome in found[form]:
            if outcome.status == FAILED:
                console.print(f"failed: {outcome.case} ({FORMS[form]}): {outcome.message[:300]}")


def _statuses() -> tuple[str, str, str]:
    return AGREES, REFUSED, FAILED


def _best(all_outcomes: list[Outcome]) -> dict[str, str]:
    """A case that agrees in one form counts as agreeing; else as failed if it failed in one."""
    rank = {AGREES: 0, FAILED: 1, REFUSED: 2}
    best: dict[str, str] = {}
    for outcome in all_outcomes:
        best[outcome.case] = min(
            best.get(outcome.case, REFUSED), outcome.status, key=rank.__getitem__
        )
    return best


def _refusals(found: dict[str, list[Outcome]]) -> Table:
    counts = {
        form: Counter(op for o in found[form] if o.status == REFUSED for op in o.operators)
        for form in FORMS
    }
    table = Table("operator", *FORMS.values(), title="cases refused, by operator")
    for op_type in sorted(set().union(*counts.values())):
        table.add_row(op_type, *(str(counts[form][op_type] or "") for form in FORMS))
    return table


if __name__ == "__main__":
    main()
