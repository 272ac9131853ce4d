"""A part of a zoo as a zoo of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ngc.cli import app
from ngc.errors import NgcError, OptionError
from ngc.zoo import Zoo, import_zoo, open_zoo
from tests.train.fake_zoo import small_zoo, write_networks


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return small_zoo(tmp_path_factory.mktemp("zoo"))


def row_of(zoo: Zoo, number: int) -> torch.Tensor:
    return zoo.rows(int(zoo.architecture[number]))[zoo.row[number][None]][0]


def test_a_part_has_the_networks_with_a_value_and_all_that_is_known_of_them(
    whole: Zoo, tmp_path: Path
) -> None:
    part = import_zoo(whole.path, tmp_path / "part", where={"step": ["1"]}, workers=2, shard=7)
    kept = [k for k in range(len(whole)) if whole.table["step"][k] == "1"]
    assert len(part) == len(kept) == len(whole) // 2
    for column, values in part.table.items():
        assert values == [whole.table[column][k] for k in kept]
    for number, k in enumerate(kept):
        assert torch.equal(row_of(part, number), row_of(whole, k))
        hashes = part.architectures.hashes, whole.architectures.hashes
        assert hashes[0][part.architecture[number]] == hashes[1][whole.architecture[k]]
        assert part.architectures[int(part.architecture[number])].program.params


def test_small_networks_in_half_precision(whole: Zoo, tmp_path: Path) -> None:
    sizes = [whole.rows(k).parameters for k in range(len(whole.architectures))]
    most = sorted(sizes)[1]
    chosen = ["--max-parameters", str(most), "--where", "step=0,1", "--dtype", "float16"]
    arguments = ["zoo", "import", str(whole.path), "-o", str(tmp_path / "part"), *chosen]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    part = open_zoo(tmp_path / "part")
    assert len(part) == sum(sizes[int(k)] <= most for k in whole.architecture)
    number = whole.table["name"].index(part.table["name"][5])
    torch.testing.assert_close(row_of(part, 5), row_of(whole, number), rtol=1e-3, atol=1e-6)


def test_what_no_network_has_is_refused(whole: Zoo, tmp_path: Path) -> None:
    out = tmp_path / "part"
    with pytest.raises(OptionError, match="no network of it is chosen"):
        import_zoo(whole.path, out, where={"step": ["7"]})
    with pytest.raises(OptionError, match="no column epoch"):
        import_zoo(whole.path, out, where={"epoch": ["7"]})
    with pytest.raises(NgcError, match="norm=nodes"):
        import_zoo(
            whole.path, out, options=whole.architectures[0].options.changed({"norm": "fold"})
        )
    assert not out.exists()
    folder = whole.path.parent / "networks"
    with pytest.raises(OptionError, match="only networks of a zoo can be chosen"):
        import_zoo(folder, out, where={"step": ["1"]}, table=folder / "table.csv")
    result = CliRunner().invoke(
        app, ["zoo", "import", str(whole.path), "-o", str(out), "--where", "step"]
    )
    assert result.exit_code == 2
    assert "--where step=10,20" in result.output


def test_a_zoo_is_never_replaced_by_itself_or_by_nothing(tmp_path: Path) -> None:
    zoo = small_zoo(tmp_path, runs=1)
    for source in (zoo.path, zoo.path / "shards"):
        with pytest.raises(OptionError, match="would be overwritten"):
            import_zoo(source, zoo.path, restart=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NgcError, match="no networks found"):
        import_zoo(tmp_path / "empty", zoo.path, restart=True)
    assert len(open_zoo(zoo.path)) == len(zoo)


def test_a_split_that_is_none_is_named_when_the_table_is_read(tmp_path: Path) -> None:
    source = write_networks(tmp_path / "networks", runs=1)
    table = source / "table.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0] + ",split", *(f"{line},valid" for line in lines[1:])]))
    with pytest.raises(NgcError, match="split is 'valid'"):
        import_zoo(source, tmp_path / "zoo", table=table)
