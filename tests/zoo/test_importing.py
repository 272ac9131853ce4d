"""Folders of networks -> zoos: what is in them, in which order, and that nothing is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file, save_file

import ngc
from ngc.errors import NgcError, OptionError
from ngc.options import Options
from ngc.zoo import import_zoo, open_zoo
from ngc.zoo.compiling import Compiler
from ngc.zoo.folder import alone
from ngc.zoo.shards import Shard
from tests.zoo.networks import classifier, contents, tensors, write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("networks"))


def test_networks_come_back_as_they_were(folder: Path, tmp_path: Path) -> None:
    zoo = import_zoo(folder, tmp_path / "zoo", shard=5)
    assert len(zoo) == 18
    assert len(zoo.architectures) == 3
    assert zoo.table["name"][:4] == ["run0/0.onnx", "run0/1.onnx", "run0/2.onnx", "run1/0.onnx"]
    for k, name in enumerate(zoo.table["name"]):
        weights = ngc.compile(folder / name).weights[2:]
        architecture = int(zoo.architecture[k])
        assert torch.equal(zoo.rows(architecture)[zoo.row[k : k + 1]][0], weights), name
        model = zoo.architectures[architecture].model(weights)
        assert all(
            np.array_equal(a, b)
            for a, b in zip(
                tensors(model).values(), tensors(onnx.load(folder / name)).values(), strict=True
            )
        )


def test_rows_are_read_in_any_order(folder: Path, tmp_path: Path) -> None:
    zoo = import_zoo(folder, tmp_path / "zoo", shard=4)
    rows = zoo.rows(1)
    whole = rows.tensor()
    assert len(rows) == len(whole) == 6
    assert torch.equal(rows[[5, 0, 3, 3]], whole[[5, 0, 3, 3]])
    with pytest.raises(OptionError, match="numbers \\[n\\] from 0 to 5"):
        rows[[6]]


def test_a_compilation_of_the_zoo_is_that_of_the_network(folder: Path, tmp_path: Path) -> None:
    zoo = import_zoo(folder, tmp_path / "zoo")
    options = Options(flatten="kernel", reverse="append")
    number = int(zoo.architecture[4])
    row = zoo.rows(number)[zoo.row[4:5]][0]
    found = zoo.architectures[number].compilation(options, row)
    expected = ngc.compile(folder / zoo.table["name"][4], options=options)
    for name, value in expected.graph().to_dict().items():
        assert torch.equal(found.graph()[name], value), name
    with pytest.raises(OptionError, match="imported with norm=nodes, not fold"):
        zoo.architectures[number].compilation(Options(norm="fold"))


def test_the_second_network_of_an_architecture_is_only_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    whole = Compiler.compile

    def counted(self: Compiler, *args: Any) -> Any:
        compiled.append(args)
        return whole(self, *args)

    monkeypatch.setattr(Compiler, "compile", counted)
    import_zoo(folder, tmp_path / "zoo")
    assert len(compiled) == 2 * 3  # once with its own numbers, once with others


def test_a_number_is_no_weight_though_it_looks_like_one(tmp_path: Path) -> None:
    """The bounds of a clip are initializers like the weights: they make an architecture each."""
    source = tmp_path / "networks"
    source.mkdir()
    bounds = [6.0, 6.0, 3.0, 6.0, 3.0]
    for k, bound in enumerate(bounds):
        onnx.save(classifier((2,), k, slope=bound), source / f"{k}.onnx")
    zoo = import_zoo(source, tmp_path / "zoo")
    first, last = (zoo.architecture == k for k in (0, 1))
    assert {tuple(first.tolist()), tuple(last.tolist())} == {
        tuple(b == bound for b in bounds) for bound in (3.0, 6.0)
    }
    for k, bound in enumerate(bounds):
        one = zoo.architectures[int(zoo.architecture[k])]
        (op,) = (op for op in one.program.ops if op.mnemonic == "activation")
        assert op.a == (0.0, bound)


def test_weights_of_half_precision_take_half_the_space(folder: Path, tmp_path: Path) -> None:
    whole = import_zoo(folder, tmp_path / "whole")
    half = import_zoo(folder, tmp_path / "half", dtype="float16")
    for k in range(3):
        expected = whole.rows(k).tensor().half().float()
        assert torch.equal(half.rows(k).tensor(), expected)
    sizes = [(tmp_path / n / "shards/00000.safetensors").stat().st_size for n in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]


def test_shards_are_safetensors(folder: Path, tmp_path: Path) -> None:
    zoo = import_zoo(folder, tmp_path / "zoo", shard=100)
    stored = load_file(tmp_path / "zoo/shards/00000.safetensors")
    assert stored.keys() == set(zoo.architectures.hashes)
    for k, digest in enumerate(zoo.architectures.hashes):
        assert np.array_equal(stored[digest], zoo.rows(k).tensor().numpy())


# --- killed, and taken up again -----------------------------------------------------------------


def test_an_import_that_was_broken_off_anywhere_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_zoo(folder, tmp_path / "whole", shard=5)
    expected = contents(tmp_path / "whole")
    replace = os.replace
    for allowed in range(len(expected) + 1):
        left = [allowed]

        def cut_short(source: Any, target: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            replace(source, target)

        zoo = tmp_path / f"cut{allowed}"
        monkeypatch.setattr("os.replace", cut_short)
        with pytest.raises(KeyboardInterrupt):
            import_zoo(folder, zoo, shard=5)
        monkeypatch.setattr("os.replace", replace)
        if (zoo / "zoo.json").exists():
            (zoo / "shards/.00000.csv.left").write_text("half a file")  # as a kill leaves it
            with pytest.raises(NgcError, match="has not come to its end"):
                open_zoo(zoo)
        import_zoo(folder, zoo, shard=5)
        assert contents(zoo) == expected, allowed


def test_what_is_done_is_not_done_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = Shard.write

    def noted(self: Shard, path: Path, number: int, dtype: str) -> None:
        written.append(number)
        write(self, path, number, dtype)

    monkeypatch.setattr(Shard, "write", noted)
    zoo = import_zoo(folder, tmp_path / "zoo", shard=5)
    facts = json.loads((zoo.path / "zoo.json").read_text())
    (zoo.path / "zoo.json").write_text(json.dumps(facts | {"complete": False}))
    (zoo.path / "shards/00002.csv").unlink()
    import_zoo(folder, tmp_path / "zoo")
    import_zoo(folder, tmp_path / "zoo")
    assert written == [0, 1, 2, 3, 2]


def test_another_import_into_the_same_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    import_zoo(folder, tmp_path / "zoo")
    with pytest.raises(NgcError, match=r"another import: dtype float32, not float16"):
        import_zoo(folder, tmp_path / "zoo", dtype="float16")
    assert import_zoo(folder, tmp_path / "zoo", dtype="float16", restart=True).facts["dtype"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(NgcError, match="no zoo, and not empty"):
            import_zoo(folder, tmp_path / "full", restart=restart)
    assert (tmp_path / "full/thesis.txt").exists()


def test_two_imports_at_a_time_are_refused(folder: Path, tmp_path: Path) -> None:
    with (
        alone(tmp_path / "zoo"),
        pytest.raises(NgcError, match="another import is under way"),
    ):
        import_zoo(folder, tmp_path / "zoo")


# --- corrupt members ----------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """run1 has a truncated file, one that is no model, and weights that are no numbers."""
    source = write_folder(tmp_path / "networks")
    path = source / "run1/0.onnx"
    path.write_bytes(path.read_bytes()[:-40])
    (source / "run1/1.onnx").write_text("not a model")
    model = classifier((3, 2))
    model.graph.initializer[0].raw_data = b"\xff" * len(model.graph.initializer[0].raw_data)
    onnx.save(model, source / "run1/2.onnx")
    return source


def test_corrupt_members_stop_the_import_until_they_are_mended(
    damaged: Path, tmp_path: Path
) -> None:
    with pytest.raises(NgcError) as caught:
        import_zoo(damaged, tmp_path / "zoo", shard=4)
    text = str(caught.value)
    assert "1 of the members of shard 00000 cannot be read" in text
    assert "run1/0.onnx: " in text
    assert "--skip-corrupt" in text
    assert list((tmp_path / "zoo/shards").iterdir()) == []
    write_folder(tmp_path / "fine")
    for k in range(3):
        (damaged / f"run1/{k}.onnx").write_bytes((tmp_path / f"fine/run1/{k}.onnx").read_bytes())
    import_zoo(damaged, tmp_path / "zoo", shard=4)
    import_zoo(damaged, tmp_path / "again", shard=4)
    assert contents(tmp_path / "zoo") == contents(tmp_path / "again")


def test_corrupt_members_are_left_out_on_request(damaged: Path, tmp_path: Path) -> None:
    zoo = import_zoo(damaged, tmp_path / "zoo", shard=4, skip_corrupt=True)
    assert len(zoo) == 15
    assert not any(name.startswith("run1") for name in zoo.table["name"])
    listed = (tmp_path / "zoo/skipped.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in listed] == [
        "name",
        *(f"run1/{k}.onnx" for k in range(3)),
    ]
    assert "27 of its 95 weights are not finite" in listed[3]
    assert zoo.facts["skipped"] == 3


def test_all_corrupt_members_of_a_shard_are_named(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(NgcError, match="3 of the members") as caught:
        import_zoo(damaged, tmp_path / "zoo")
    assert all(f"run1/{k}.onnx" in str(caught.value) for k in range(3))


def test_numbers_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    model = classifier((2,))
    array = tensors(model)["fc.b"]
    array[0] = 1e6
    model.graph.initializer[-1].raw_data = array.tobytes()
    onnx.save(model, tmp_path / "one.onnx")
    with pytest.raises(NgcError, match="1 of its 29 weights are beyond float16"):
        import_zoo(tmp_path / "one.onnx", tmp_path / "zoo", dtype="float16")
    assert len(import_zoo(tmp_path / "one.onnx", tmp_path / "zoo")) == 1


# --- tables -------------------------------------------------------------------------------------


def table(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_says_more_of_the_networks(folder: Path, tmp_path: Path) -> None:
    names = [f"run{run}/{step}" for run in range(6) for step in range(3)]
    lines = [f'{name},0.{k:02d},{name[:4]},"a, b\nc"' for k, name in enumerate(names)]
    path = table(tmp_path / "t.csv", ["file,accuracy,run,remark", *reversed(lines)])
    zoo = import_zoo(folder, tmp_path / "zoo", table=path, shard=7)
    assert list(zoo.table) == ["name", "accuracy", "run", "remark"]
    assert zoo.table["run"][3:6] == ["run1"] * 3
    assert zoo.table["remark"][5] == "a, b\nc"
    assert zoo.numbers("accuracy").tolist() == [k / 100 for k in range(18)]
    with pytest.raises(NgcError, match="no column step"):
        zoo.numbers("step")
    with pytest.raises(NgcError, match="run is 'run0', not a number"):
        zoo.numbers("run")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["name,accuracy", "run0/0.onnx,0.5"], "no row for 17 of 18 members: run0/1.onnx"),
        (["path,accuracy", "run0/0.onnx,0.5"], "no column is called name or file"),
        (["name,accuracy", "a,93.1"], "accuracy is '93.1', not a number from 0 to 1"),
        (["name,accuracy", "a,0.1,5"], "3 fields, not 2"),
        (["name", "a", "./a"], "two rows for a"),
    ],
)
def test_mistakes_in_a_table(folder: Path, tmp_path: Path, lines: list[str], expected: str) -> None:
    path = table(tmp_path / "t.csv", lines)
    with pytest.raises(NgcError, match=expected.replace("?", "\\?")):
        import_zoo(folder, tmp_path / "zoo", table=path)
    assert not (tmp_path / "zoo").exists()


def test_all_wrong_rows_are_named_together(folder: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", ["name,accuracy", "c,good", "b,0.5", "a,93.1", "d,-1"])
    with pytest.raises(NgcError) as caught:
        import_zoo(folder, tmp_path / "zoo", table=path)
    text = str(caught.value)
    assert "3 rows cannot be" in text
    assert all(f"{name}: accuracy is {value!r}" in text
               for name, value in (("a", "93.1"), ("c", "good"), ("d", "-1")))  # fmt: skip
    assert "0.93 for 93 %" in caught.value.hint
    path = table(tmp_path / "t.csv", ["name,accuracy", *(f"{k},bad" for k in range(1200))])
    with pytest.raises(NgcError, match=r"and 1,195 more"):
        import_zoo(folder, tmp_path / "zoo", table=path)


def test_rows_without_a_file_are_noted(folder: Path, tmp_path: Path) -> None:
    names = [f"run{run}/{step}" for run in range(6) for step in range(3)]
    path = table(tmp_path / "t.csv", ["name,accuracy", *(f"{name},0.5" for name in names)])
    assert import_zoo(folder, tmp_path / "zoo", table=path).facts["notes"] == []
    more = [*path.read_text().splitlines(), "run9/0.onnx,0.5", "run9/1.onnx,0.5"]
    zoo = import_zoo(folder, tmp_path / "more", table=table(tmp_path / "more.csv", more))
    (note,) = zoo.facts["notes"]
    assert note.endswith("more.csv are of no file here: run9/0.onnx, run9/1.onnx")
    assert note.startswith("2 rows of ")


# --- weights alone ------------------------------------------------------------------------------


def test_a_folder_of_weights_with_one_model(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.mkdir()
    onnx.save(classifier((3, 2)), tmp_path / "model.onnx")
    for seed in range(3):
        found = tensors(classifier((3, 2), seed))
        save_file(found, source / f"{seed}.safetensors")
        np.savez(source / f"{seed}.npz", **found)
        torch.save({k: torch.from_numpy(v) for k, v in found.items()}, source / f"{seed}.pt")
    zoo = import_zoo(source, tmp_path / "zoo", model=str(tmp_path / "model.onnx"))
    assert len(zoo.architectures) == 1
    for k, name in enumerate(zoo.table["name"]):
        expected = ngc.compile(classifier((3, 2), int(name[0]))).weights[2:]
        assert torch.equal(zoo.rows(0)[[k]][0], expected), name


def test_weights_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.mkdir()
    onnx.save(classifier((3, 2)), tmp_path / "model.onnx")
    save_file(tensors(classifier((2, 2))), source / "a.safetensors")
    model = str(tmp_path / "model.onnx")
    with pytest.raises(NgcError, match=r"a.safetensors: .*of another shape: 0.w is \[2, 1, 3, 3\]"):
        import_zoo(source, tmp_path / "zoo", model=model)
    with pytest.raises(NgcError, match="weights alone"):
        import_zoo(source, tmp_path / "other")
    with pytest.raises(NgcError, match=r"gone\.onnx: cannot read it"):
        import_zoo(source, tmp_path / "other", model=str(tmp_path / "gone.onnx"))
    assert not (tmp_path / "other").exists()


def test_where_no_weights_fit_the_model_is_doubted(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.mkdir()
    onnx.save(classifier((3, 2)), tmp_path / "model.onnx")
    for seed in range(3):
        save_file(tensors(classifier((2, 2), seed)), source / f"{seed}.safetensors")
    with pytest.raises(NgcError) as caught:
        import_zoo(source, tmp_path / "zoo", model=str(tmp_path / "model.onnx"))
    assert "that is every one: are they state-dicts? see --kind, --model" in caught.value.hint
    save_file(tensors(classifier((3, 2))), source / "0.safetensors")
    with pytest.raises(NgcError) as caught:  # not every one, though all of a shard
        import_zoo(source, tmp_path / "zoo", model=str(tmp_path / "model.onnx"), shard=1)
    assert "--skip-corrupt" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "expected"),
    [("gone", "no such file or folder"), ("empty", "no networks found")],
)
def test_sources_without_networks(tmp_path: Path, source: str, expected: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NgcError, match=expected):
        import_zoo(tmp_path / source, tmp_path / "zoo")


def test_what_is_no_zoo(tmp_path: Path) -> None:
    with pytest.raises(NgcError, match="there is no zoo"):
        open_zoo(tmp_path)
    (tmp_path / "zoo.json").write_text("{}")
    with pytest.raises(NgcError, match="not the description of a zoo"):
        open_zoo(tmp_path)


def test_a_damaged_zoo(folder: Path, tmp_path: Path) -> None:
    zoo = import_zoo(folder, tmp_path / "zoo")
    path = tmp_path / "zoo/shards/00000.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(NgcError, match="not a shard of a zoo, or damaged"):
        open_zoo(zoo.path)
