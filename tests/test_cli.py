"""Each command on a tiny network: what it prints, where, and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnx.parser import parse_model
from typer.testing import CliRunner, Result

import ngc
from ngc.cli import app
from ngc.cli.settings import explanations
from ngc.ir.text import parse_program, print_program
from ngc.proof import Check, Verification
from tests.test_tiny import tiny_model

OPEN = """
    <ir_version: 10, opset_import: ["": 20]>
    open (float[batch, 4] x) => (float[batch, 4] y) { y = Relu (x) }
"""
UNSUPPORTED = """
    <ir_version: 10, opset_import: ["": 20]>
    strange (float[2, 3] x) => (float[2, 3] z) {
        [first] y = Bernoulli (x)
        [second] z = RandomNormalLike (y)
    }
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    return write(tiny_model(), tmp_path / "tiny.onnx")


def write(model: onnx.ModelProto, path: Path) -> str:
    path.write_bytes(model.SerializeToString())
    return str(path)


def ngc_command(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": None}).invoke(app, [str(word) for word in words])


def row(result: Result, first: str) -> list[str]:
    """The words of the first row that starts with ``first``."""
    found = [line.split() for line in result.stdout.splitlines() if line.split()[:1] == [first]]
    assert found, result.output
    return found[0]


# --- compile, decompile -------------------------------------------------------------------------


def test_compile_writes_a_file_and_says_what_is_in_it(tiny: str, tmp_path: Path) -> None:
    result = ngc_command("compile", tiny, "-o", tmp_path / "graph.pt")
    assert result.exit_code == 0, result.output
    assert row(result, "0") == ["0", tiny, "6", "9", "9", "13"]
    assert "compiling" in result.stderr
    assert "compiling" not in result.stdout
    assert len(ngc.load(tmp_path / "graph.pt")) == 1


def test_compile_puts_several_models_into_one_file(tiny: str, tmp_path: Path) -> None:
    assert ngc_command("compile", tiny, tiny, "-o", tmp_path / "two.pt").exit_code == 0
    assert len(ngc.load(tmp_path / "two.pt")) == 2


def test_all_models_that_cannot_be_compiled_are_told_and_nothing_is_written(
    tiny: str, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    found = ngc_command("compile", broken, tiny, "missing.onnx", "-o", tmp_path / "graph.pt")
    assert found.exit_code == 2
    assert "error: 2 of 3 models cannot be compiled" in found.stderr
    assert "broken.onnx" in found.stderr
    assert "missing.onnx: cannot read it" in found.stderr
    assert not (tmp_path / "graph.pt").exists()


def test_every_option_has_a_flag_that_reaches_the_compilation(tiny: str, tmp_path: Path) -> None:
    flags = [
        *("--flatten", "kernel", "--kernel", "3x3", "--linear-as", "separate", "--norm", "fold"),
        *("--residual", "nodes", "--activation", "nodes", "--reverse", "append", "--pos", "none"),
        *("--storage", "padded", "--input-axes", "x=1", "--attention", "fused"),
        *("--recurrent", "unrolled"),
    ]
    result = ngc_command("compile", tiny, "-o", tmp_path / "graph.pt", *flags)
    assert result.exit_code == 0, result.output
    (architecture,) = ngc.load(tmp_path / "graph.pt").architectures
    assert architecture.options == ngc.Options(
        flatten="kernel", kernel=(3, 3), linear_as="separate", norm="fold", residual="nodes",
        activation="nodes", reverse="append", pos="none", storage="padded", input_axes={"x": (1,)},
        attention="fused", recurrent="unrolled",
    )  # fmt: skip
    assert 2 * len(ngc.Options().to_dict()) == len(flags)
    assert all(explanations()[name] for name in ngc.Options().to_dict())


def test_sizes_given_by_name_are_used(tmp_path: Path) -> None:
    model = write(parse_model(OPEN), tmp_path / "open.onnx")
    result = ngc_command("show", model, "--level", "program", "--dim", "batch=5")
    assert row(result, "x")[-1] == "[5,4]"
    assert "note" not in result.stderr
    result = ngc_command("show", model, "--level", "program", "--shape", "x=7x4")
    assert row(result, "x")[-1] == "[7,4]"


def test_a_size_of_0_is_refused(tmp_path: Path) -> None:
    model = write(parse_model(OPEN), tmp_path / "open.onnx")
    result = ngc_command("show", model, "--dim", "batch=0")
    assert result.exit_code == 2
    assert result.stderr == "error: size 0 of dimension batch is not positive\n"


def test_sizes_that_were_chosen_are_said(tmp_path: Path) -> None:
    model = write(parse_model(OPEN), tmp_path / "open.onnx")
    result = ngc_command("show", model, "--level", "program")
    assert "note: input x has shape [batch, 4]; compiled for 1x4" in result.stderr


def test_decompile_gives_the_network_back(tiny: str, tmp_path: Path) -> None:
    graph, back = tmp_path / "graph.pt", tmp_path / "back.onnx"
    ngc_command("compile", tiny, "-o", graph)
    result = ngc_command("decompile", graph, "-o", back)
    assert result.exit_code == 0, result.output
    assert onnx.printer.to_text(onnx.load(back)) == onnx.printer.to_text(tiny_model())


def test_decompile_refuses_a_number_that_is_not_there(tiny: str, tmp_path: Path) -> None:
    ngc_command("compile", tiny, "-o", tmp_path / "graph.pt")
    back = tmp_path / "back.onnx"
    result = ngc_command("decompile", tmp_path / "graph.pt", "--number", 1, "-o", back)
    assert result.exit_code == 2
    assert "holds 1 graph(s), there is no number 1" in result.stderr
    assert not back.exists()


def test_decompile_refuses_a_file_that_is_no_graph(tiny: str, tmp_path: Path) -> None:
    result = ngc_command("decompile", tiny, "-o", tmp_path / "back.onnx")
    assert result.exit_code == 2
    assert "tiny.onnx: not a file that ngc wrote\n" in result.stderr
    assert "ngc compile MODEL" in result.stderr  # no advice of torch's


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.zeros(2)}, "not a file that ngc wrote: it has no entry 'format'"),
        (torch.zeros(2), "not a file that ngc wrote"),
        ({"format": 1, "architectures": 3}, "not a file that ngc wrote, or a damaged one"),
        ({"format": 0}, "format 0, ngc reads 1"),
    ],
)
def test_files_that_torch_wrote_for_others_are_refused(
    content: object, message: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "other.pt")
    result = ngc_command("decompile", tmp_path / "other.pt", "-o", tmp_path / "back.onnx")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path / 'other.pt'}: {message}\n")


# --- verify -------------------------------------------------------------------------------------


def test_verify_prints_the_four_checks(tiny: str) -> None:
    result = ngc_command("verify", tiny)
    assert result.exit_code == 0, result.output
    for check in ("faithful", "lossless", "symmetric", "complete"):
        assert row(result, check)[1] == "pass"


def test_verify_fails_with_code_1_and_keeps_what_failed(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ngc.proof

    failed = Check("faithful", False, "max relative error 0.5", "output y: first at [0, 0]")
    outcome = Verification("tiny", (failed,), tiny_model())
    monkeypatch.setattr(ngc.proof, "verify", lambda *args, **kwargs: outcome)
    result = ngc_command("verify", tiny, "--save-failure", tmp_path / "failure")
    assert result.exit_code == 1
    assert row(result, "faithful")[1] == "FAIL"
    assert "faithful: output y: first at [0, 0]" in result.stdout
    assert str(tmp_path / "failure") in result.stderr
    assert {p.name for p in (tmp_path / "failure").iterdir()} == {
        "model.onnx", "inputs.npz", "report.txt",
    }  # fmt: skip


# --- show ---------------------------------------------------------------------------------------


def test_show_has_a_table_for_each_level(tiny: str) -> None:
    result = ngc_command("show", tiny)
    assert result.exit_code == 0, result.output
    assert row(result, "Gemm") == ["Gemm", "ai.onnx", "2"]
    assert "3 nodes of 2 operators; 4 floating-point initializers with 13 entries" in result.stdout
    assert "6 operations; 4 parameters with 13 entries; outputs y = y.1" in result.stdout
    assert row(result, "r")[:4] == ["r", "activation", "relu", "h.1"]
    assert "6 neurons in 3 groups" in result.stdout
    assert "9 edges, 9 kernel entries" in result.stdout
    assert "parameters that are not on the graph: none" in result.stdout


def test_show_names_nodes_only_where_asked(tiny: str) -> None:
    assert "fc1" not in ngc_command("show", tiny, "--level", "onnx").stdout
    assert row(ngc_command("show", tiny, "--level", "onnx", "--nodes"), "fc1")[1] == "Gemm"
    assert "2-4" not in ngc_command("show", tiny, "--level", "graph").stdout
    assert "2-4" in row(ngc_command("show", tiny, "--level", "graph", "--nodes"), "h")


def test_no_table_is_wider_than_the_terminal(tmp_path: Path) -> None:
    model, long = tiny_model(), "a_module_with_a_long_name." * 10
    model.graph.node[0].name = long + "fc1"
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = long + "h"
    path = write(model, tmp_path / "tiny.onnx")
    runner = CliRunner(env={"COLUMNS": "70"})
    for level in ("onnx", "program", "graph"):
        result = runner.invoke(app, ["show", path, "--nodes", "--level", level])
        assert result.exit_code == 0, result.output
        assert max(len(line) for line in result.stdout.splitlines()) <= 70, result.stdout
    assert long + "h" in ngc_command("show", path, "--level", "program").stdout


def test_show_prints_text_that_parses_back(tiny: str) -> None:
    text = ngc_command("show", tiny, "--level", "program", "--text").stdout
    assert print_program(parse_program(text)) == text
    text = ngc_command("show", tiny, "--level", "onnx", "--text").stdout
    assert [node.op_type for node in parse_model(text).graph.node] == ["Gemm", "Relu", "Gemm"]
    text = ngc_command("show", tiny, "--level", "graph", "--text").stdout
    assert "  %h sum hidden [3] nodes=2..5 layer=1 act=relu bias=@b1\n" in text


def test_show_stops_after_any_pass(tiny: str) -> None:
    result = ngc_command("show", tiny, "--after", "emit")
    assert "13 neurons" in result.stdout
    assert "9 neurons" in ngc_command("show", tiny, "--after", "merge-bias").stdout
    for name in ("inline-functions", "lower", "fold-view", "merge-affine", "number", "kernel"):
        assert ngc_command("show", tiny, "--after", name).exit_code == 0, name


def test_show_lists_the_passes_on_a_wrong_name(tiny: str) -> None:
    result = ngc_command("show", tiny, "--after", "residuals")
    assert result.exit_code == 2
    assert "no pass 'residuals' runs with these options" in result.stderr
    assert "fold-view" in result.stderr
    assert "try: --after residual" in result.stderr


def test_show_refuses_a_pass_of_another_level(tiny: str) -> None:
    result = ngc_command("show", tiny, "--after", "residual", "--level", "program")
    assert result.exit_code == 2
    assert "residual is a pass of level graph" in result.stderr


# --- symmetries, operators ----------------------------------------------------------------------


def test_symmetries_lists_families(tiny: str) -> None:
    result = ngc_command("symmetries", tiny)
    assert result.exit_code == 0, result.output
    assert row(result, "h")[:4] == ["h", "3", "1", "0.8"]
    assert "1 family; order of the group: 6" in result.stdout


def test_operators_lists_rules_with_their_opsets() -> None:
    result = ngc_command("operators")
    assert row(result, "Gemm") == ["Gemm", "ai.onnx", "1"]


# --- errors -------------------------------------------------------------------------------------


def test_a_missing_file_is_one_line_and_code_2(tmp_path: Path) -> None:
    result = ngc_command("show", tmp_path / "no.onnx")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("no.onnx") == 1
    assert "no.onnx: cannot read it: No such file" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_names_from_a_model_cannot_steer_the_terminal(tmp_path: Path) -> None:
    model = tiny_model()
    model.graph.node[0].name = "fc\x1b[2J1"
    result = ngc_command("show", write(model, tmp_path / "tiny.onnx"), "--nodes")
    assert result.exit_code == 0, result.output
    assert "\x1b[2J" not in result.stdout
    assert "fc\ufffd[2J1" in result.stdout


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = ngc_command("show", tmp_path / "no.onnx", "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


def test_all_unsupported_operators_are_named_at_once(tmp_path: Path) -> None:
    model = write(parse_model(UNSUPPORTED), tmp_path / "strange.onnx")
    result = ngc_command("compile", model, "-o", tmp_path / "graph.pt")
    assert result.exit_code == 2
    assert "first" in result.stderr
    assert "second" in result.stderr
    assert result.stderr.count("try: `ngc operators` lists what compiles") == 1
    assert not (tmp_path / "graph.pt").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--flatten", "twice"], "flatten cannot be 'twice'"),
        (["--kernel", "7y7"], "cannot read the kernel size '7y7'"),
        (["--shape", "x"], "cannot read the shape 'x'"),
        (["--dim", "batch=one"], "cannot read the dimension 'batch=one'"),
        (["--input-axes", "x"], "cannot read the axes 'x'"),
        (["--max-elements", "5"], "budget of 5"),
    ],
)
def test_a_wrong_flag_is_refused(tiny: str, flags: list[str], message: str) -> None:
    result = ngc_command("show", tiny, *flags)
    assert result.exit_code == 2
    assert message in result.stderr


def test_an_output_that_cannot_be_written_is_refused_first(tiny: str, tmp_path: Path) -> None:
    result = ngc_command("compile", tiny, "-o", tmp_path / "no" / "graph.pt")
    assert result.exit_code == 2
    assert "there is no folder" in result.stderr
    assert "compiling" not in result.stderr


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["compile", "verify", "show", "decompile", "symmetries", "operators"]
)
def test_help_has_an_example(name: str) -> None:
    result = ngc_command(name, "--help")
    assert result.exit_code == 0
    assert f"Example: ngc {name}" in result.stdout


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from ngc.cli import app\n"
        "try:\n"
        "    app(['--help'])\n"
        "except SystemExit as end:\n"
        "    assert end.code in (0, None)\n"
        "print('LOADED', sorted({name.split('.')[0] for name in sys.modules}))"
    )
    environment = dict(os.environ, PYTHONPATH=str(Path(ngc.__file__).parents[1]))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert "compile" in done.stdout
    loaded = done.stdout.split("LOADED")[1]
    assert "'ngc'" in loaded
    for heavy in ("torch", "onnx", "numpy", "torch_geometric", "onnxruntime"):
        assert f"'{heavy}'" not in loaded
