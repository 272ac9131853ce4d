"""Chunks shared out over threads: what each gets, and that models do not notice."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ngc.models import build, pair_chunks
from ngc.models.sharing import added, shared_out
from tests.models.classifiers import company, families
from tests.models.networks import facts_of

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_every_chunk_is_worked_on_once_and_runs_come_in_order(threads: int) -> None:
    found = shared_out(list, range(8), CPU)
    assert [number for run in found for number in run] == list(range(8))
    assert len(found) == threads
    assert torch.get_num_threads() == threads


def test_runs_are_of_threads_of_their_own_and_torch_has_one_in_each(threads: int) -> None:
    together = threading.Barrier(threads)

    def work(_: list[int]) -> int:
        together.wait(timeout=60)  # all are at it at one time
        return torch.get_num_threads()

    assert shared_out(work, range(8), CPU) == [1] * threads


def test_what_belongs_together_stays_together(threads: int) -> None:
    found = shared_out(list, range(12), CPU, together=lambda k: k // 4)
    assert len(found) == threads
    assert [number for run in found for number in run] == list(range(12))
    assert all({k // 4 for k in one}.isdisjoint({k // 4 for k in other})
               for one in found for other in found if one is not other)  # fmt: skip


def test_modes_are_those_of_the_thread_that_asks(threads: int) -> None:
    def modes(_: list[int]) -> tuple[bool, bool, torch.dtype]:
        low = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        return (torch.is_grad_enabled(), *low)

    for grad, low in ((True, False), (False, True)):
        with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16, low):
            found = shared_out(modes, range(8), CPU)
        assert {one[:2] for one in found} == {(grad, low)}
        assert not low or {one[2] for one in found} == {torch.bfloat16}


def test_where_there_are_fewer_chunks_than_threads_torch_shares_operations(threads: int) -> None:
    found = shared_out(lambda _: torch.get_num_threads(), range(threads - 1), CPU)
    assert found == [threads]


def test_inference_mode_is_that_of_the_thread_that_asks(threads: int) -> None:
    with torch.inference_mode():
        rows = torch.zeros(8)

        def fill(numbers: list[int]) -> bool:
            rows[numbers] += 1
            return torch.is_inference_mode_enabled()

        assert set(shared_out(fill, range(8), CPU)) == {True}
        assert rows.tolist() == [1] * 8
    assert set(shared_out(lambda _: torch.is_inference_mode_enabled(), range(8), CPU)) == {False}


def test_an_error_of_any_run_comes_out_and_the_threads_are_given_back(threads: int) -> None:
    for wrong in (0, 7):
        with pytest.raises(ValueError, match="bad chunk"):
            shared_out(lambda run, wrong=wrong: _refuse(run, wrong), range(8), CPU)
        assert torch.get_num_threads() == threads


def _refuse(run: list[int], wrong: int) -> None:
    if wrong in run:
        raise ValueError("bad chunk")


def test_sums_of_runs_are_added_in_order() -> None:
    rows = [[torch.tensor([float(k)]), torch.tensor([10.0 * k])] for k in range(3)]
    assert [t.tolist() for t in added(rows)] == [[3.0], [30.0]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        shared_out(list, range(4), CPU)
        child = os.fork()
        if not child:
            os._exit(0 if shared_out(list, range(4), CPU) == [[0, 1], [2, 3]] else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(before)


# --- models ---------------------------------------------------------------------------------------

NETWORKS = families()


@pytest.mark.parametrize("low", [False, True])
def test_outputs_and_gradients_do_not_depend_on_threads(
    low: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks are so small that every network has some of its own, and large ones several."""
    monkeypatch.setitem(pair_chunks.CHUNK_ENTRIES, "cpu", 2**11)
    batch = company(NETWORKS)[0]
    found: list[list[Tensor]] = []
    before = torch.get_num_threads()
    for count in (1, 3, 3):
        torch.manual_seed(0)
        model = build("ng_t", facts_of(*NETWORKS.values()), outputs=3, dropout=0.25)
        torch.set_num_threads(count)
        try:
            torch.manual_seed(1)
            with torch.autocast("cpu", torch.bfloat16, low):
                outputs = model(batch)
            outputs.float().square().sum().backward()
        finally:
            torch.set_num_threads(before)
        found.append([outputs.float(), *(p.grad for p in model.parameters() if p.grad is not None)])
    alone, shared, again = found
    for one, other, third in zip(alone, shared, again, strict=True):
        scale = float(one.detach().abs().max()) + 1e-3
        torch.testing.assert_close(other / scale, one / scale, rtol=0, atol=0.1 if low else 1e-5)
        assert torch.equal(other, third)  # the same each time
