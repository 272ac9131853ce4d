"""Files for people: what they hold, and that they are whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ngc.errors import OptionError
from ngc.train import report, runs

HISTORY = [
    {"epoch": 0, "step": 3, "train_loss": 2.0, "validation_loss": 2.5},
    {"epoch": 1, "step": 6, "train_loss": 1.0, "validation_loss": 1.5},
]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


# --- tables ---------------------------------------------------------------------------------------


def test_the_history_counts_epochs_from_one_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    report.write_history(HISTORY, path)
    assert path.read_text() == ("epoch,step,train_loss,validation_loss\n1,3,2.0,2.5\n2,6,1.0,1.5\n")
    assert runs.read_history(path) == HISTORY
    assert runs.read_history(tmp_path / "none.csv") == []


def test_json_reads_back(tmp_path: Path) -> None:
    report.write_json({"a": [1, 2.5], "b": None}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1, 2.5], "b": None}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_damaged_files_of_a_run_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(OptionError, match=r"x.json: it is damaged"):
        runs.read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("3")
    with pytest.raises(OptionError, match="holds no object"):
        runs.read_json(tmp_path / "x.json")
    (tmp_path / "recipe.yaml").write_text("[1]")
    with pytest.raises(OptionError, match="is no whole recipe"):
        runs.read_run(tmp_path)


# --- figures --------------------------------------------------------------------------------------


def test_curves_show_more_where_there_are_more_runs(tmp_path: Path) -> None:
    report.draw_curves({"a": HISTORY}, tmp_path / "one.png")
    report.draw_curves({"a": HISTORY, "b": HISTORY[:1]}, tmp_path / "two.png")
    one, two = pixels(tmp_path / "one.png"), pixels(tmp_path / "two.png")
    assert one.shape == two.shape
    assert (one != two).any()


def test_curves_of_nothing_are_not_drawn(tmp_path: Path) -> None:
    report.draw_curves({"a": []}, tmp_path / "none.png")
    assert list(tmp_path.iterdir()) == []


def test_confusion_is_dark_where_the_counts_are(tmp_path: Path) -> None:
    right = np.array([[5, 0], [0, 5]])
    report.draw_confusion(right, ("cat", "dog"), tmp_path / "right.png")
    report.draw_confusion(right[::-1], ("cat", "dog"), tmp_path / "wrong.png")
    right_image, wrong_image = pixels(tmp_path / "right.png"), pixels(tmp_path / "wrong.png")
    height, width = right_image.shape[0] // 3, right_image.shape[1] // 3
    # Upper left of the matrix: full of counts, or empty.
    assert (
        right_image[:height, width : 2 * width].mean()
        < wrong_image[:height, width : 2 * width].mean()
    )


def test_pictures_stand_in_rows_and_columns(tmp_path: Path) -> None:
    dark, light = np.zeros((2, 1, 4, 4)), np.ones((2, 1, 4, 4)) * 3  # clamped
    report.draw_pictures({"before": dark, "after": light}, tmp_path / "grid.png")
    report.draw_pictures({"before": dark, "after": dark}, tmp_path / "dark.png")
    grid, dark_grid = pixels(tmp_path / "grid.png"), pixels(tmp_path / "dark.png")
    half = grid.shape[0] // 2
    assert grid[half:].mean() > dark_grid[half:].mean() + 50
    assert abs(grid[:half].mean() - dark_grid[:half].mean()) < 10


def test_a_picture_is_saved_pixel_by_pixel(tmp_path: Path) -> None:
    grey = np.array([[[-1.0, 0.0, 0.5], [1.0, 2.0, 0.25]]])
    report.save_picture(grey, tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as image:
        assert np.asarray(image).tolist() == [[0, 0, 128], [255, 255, 64]]
    color = np.stack([np.zeros((2, 3)), np.ones((2, 3)), np.zeros((2, 3))])
    report.save_picture(color, tmp_path / "color.png")
    with Image.open(tmp_path / "color.png") as image:
        assert np.asarray(image)[0, 0].tolist() == [0, 255, 0]


# --- several seeds --------------------------------------------------------------------------------


def test_spread_is_the_sample_deviation() -> None:
    assert runs.spread([1.0, 3.0]) == {
        "mean": 2.0, "deviation": pytest.approx(2**0.5), "values": [1.0, 3.0],
    }  # fmt: skip
    assert runs.spread([4.0])["deviation"] == 0


def test_figures() -> None:
    assert runs.figure(0.98765) == "0.9877"
    assert runs.figure(0.0206123) == "0.02061"
    assert runs.figure(runs.spread([0.5, 0.7])) == "0.6000 \u00b1 0.1414"
    assert runs.figure("-") == "-"


def test_keys_in_which_recipes_differ() -> None:
    def run(recipe: dict[str, object]) -> runs.Run:
        return runs.Run(Path("x"), recipe, {}, {})

    first = run({"train": {"epochs": 3, "lr": 0.1}, "data": {"augment": None}})
    second = run({"train": {"epochs": 4, "lr": 0.1}, "data": {"augment": {"noise": 0.5}}})
    assert runs.differing([first, second]) == {
        "train.epochs": ["3", "4"],
        "data.augment.noise": ["-", "0.5"],
    }
