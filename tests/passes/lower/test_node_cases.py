"""Every single-operator case of the ONNX backend tests agrees, or its operators are refused."""

from __future__ import annotations

from collections import Counter

import pytest

from ngc.passes.lower.base import RULES
from tests.passes.lower.node_cases import AGREES, FAILED, REFUSED, Outcome, outcomes

# Cases known to fail, with the reason.
ALIGNED = (
    "align_corners divides by the size of the result; the case, unlike onnxruntime, does by input "
    "size times scale before rounding"
)
KNOWN_FAILURES = {
    ("frozen", "test_resize_downsample_scales_cubic_align_corners"): ALIGNED,
    ("frozen", "test_resize_downsample_scales_linear_align_corners"): ALIGNED,
}

# How many cases agreed when this was written: more is welcome, fewer is a step back.
AGREEING = {"inputs": 1029, "frozen": 950}


@pytest.fixture(scope="module")
def found() -> dict[str, list[Outcome]]:
    return {form: list(outcomes(form)) for form in AGREEING}


@pytest.mark.parametrize("form", AGREEING)
def test_cases_agree_or_are_refused(found: dict[str, list[Outcome]], form: str) -> None:
    failed = {(o.form, o.case): o.message for o in found[form] if o.status == FAILED}
    known = {key for key in KNOWN_FAILURES if key[0] == form}
    surprises = {key: message for key, message in failed.items() if key not in known}
    assert not surprises
    assert known <= set(failed), "a known failure is gone: take it off the list"


@pytest.mark.parametrize("form", AGREEING)
def test_many_cases_agree(found: dict[str, list[Outcome]], form: str) -> None:
    count = Counter(outcome.status for outcome in found[form])
    assert count[AGREES] >= AGREEING[form], count


def test_operators_with_rules_are_refused_for_a_stated_reason(
    found: dict[str, list[Outcome]],
) -> None:
    supported = {op_type for domain, op_type in RULES if not domain}
    refused = [o for o in found["frozen"] if o.status == REFUSED]
    assert refused
    for outcome in refused:
        assert outcome.operators
        if set(outcome.operators) <= supported:
            assert "is not supported\n" not in outcome.message, outcome
