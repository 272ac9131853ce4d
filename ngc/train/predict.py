"""Trained models on new files: the class of each network, a number, or an edited copy of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ngc.backends.blocks import structure_of
from ngc.compiler import Compilation, compile
from ngc.errors import NgcError, OptionError
from ngc.files import write_beside
from ngc.models import Facts, build
from ngc.models.limits import faults_of, refusal
from ngc.models.normalise import Normalise
from ngc.models.unseen import unseen_in
from ngc.options import Options
from ngc.train import runs
from ngc.train.keeper import BEST
from ngc.train.networks import Batch, Family, Member, graphs_of
from ngc.train.prepare import facts_from_dict
from ngc.train.recipe import model_section
from ngc.train.tasks import edited_weights

BATCH = 64  # networks at a time


@dataclass(frozen=True, eq=False)
class Trained:
    """The models of a run, ready to read networks that are compiled with ``options``: the one of
    the best seed, or where a number is predicted those of all seeds.

    Each of ``models`` normalises graphs and reads them. ``facts``: of the graphs they were trained
    on. ``classes``: names, where classes are predicted. ``target``: what number is.
    """

    path: Path
    models: tuple[nn.Sequential, ...]
    options: Options
    facts: Facts
    predicts: str
    classes: tuple[str, ...]
    target: str


@dataclass(frozen=True, eq=False)
class Prediction:
    """About one network of weights [slots]: the probability of each class, the number that each
    model predicts, or changed weights.

    ``unseen``: what the network has that no network of the training set had; what a model says of
    it is worth little.
    """

    file: str
    family: Family
    weights: Tensor
    unseen: tuple[str, ...] = ()
    probabilities: Tensor | None = None
    values: Tensor | None = None
    edited: Tensor | None = None


def load_trained(path: Path) -> Trained:
    """What a run folder has learned."""
    seeds = _seeds(path)
    found = [_load(folder, path) for folder in seeds]
    if len(found) == 1 or found[0].target:
        return replace(found[0], models=tuple(one.models[0] for one in found))
    return found[max(range(len(found)), key=lambda k: _validation(seeds[k]))]


def _load(folder: Path, path: Path) -> Trained:
    """The best model of one seed of a run."""
    file = folder / runs.CHECKPOINTS / BEST
    if not file.is_file():
        raise OptionError(
            "it has no trained model yet", where=str(path), hint=f"ngc run {path} --resume"
        )
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        settings = model_section(content["model"]).model_validate(content["settings"]).model_dump()
        facts = facts_from_dict(content["facts"])
        model = build(
            settings.pop("name"),
            facts,
            predicts=content["predicts"],
            outputs=content["outputs"],
            **settings,
        )
        normalise = Normalise(content["normalise"], facts.num_layers)
        whole = nn.ModuleDict({"model": model, "normalise": normalise})
        whole.load_state_dict(content["state"])
        options = Options().changed(content["graph"])
        found = content["predicts"], tuple(content["classes"]), content.get("target", "")
    except NgcError:
        raise
    except Exception as error:  # whatever a foreign or damaged file leads to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NgcError(f"not a model that this ngc wrote: {reason}", where=str(file)) from error
    return Trained(file, (nn.Sequential(normalise, model).eval(),), options, facts, *found)


def _seeds(path: Path) -> list[Path]:
    """The folders of the seeds that have ended; the run folder itself, where it is of one."""
    runs.require_run(path)
    inner = [one for one in sorted(path.glob("seed-*")) if runs.read_json(one / runs.METRICS)]
    return inner or [path]


def _validation(folder: Path) -> float:
    """How good a seed is; larger is better."""
    metrics = runs.read_json(folder / runs.METRICS)["validation"]
    return float(metrics["accuracy"] if "accuracy" in metrics else -metrics["mse"])


def _raise(error: NgcError) -> None:
    raise error


@torch.no_grad()
def predict(
    trained: Trained,
    files: Sequence[str],
    refused: Callable[[NgcError], None] = _raise,
    *,
    plan_from: str | None = None,
    inputs: Any = None,
) -> list[Prediction]:
    """One prediction a file, in their order. Networks of one architecture are read together.

    ``refused`` is told of each file that cannot be read, which then has no prediction; by default
    the first one ends it all. With ``plan_from`` the files are weights alone (.safetensors, .npz,
    .pt) of that architecture. ``inputs``: of it, or else of the models, as ``ngc.compile`` takes
    them.
    """
    compiled = partial(_compiled, trained, inputs)
    read = compiled if plan_from is None else compiled(plan_from).with_weights
    found: dict[str, Prediction] = {}
    for family, names in _families(read, files, refused):
        numbers = torch.arange(len(names))
        shapes = family.prober.input_shapes
        unseen = unseen_in(trained.facts, structure_of(family.compilation.plan), shapes)
        for chosen in numbers.split(BATCH):
            weights = family.weights[chosen]
            member = Member(family, torch.arange(len(chosen)), weights)
            batch = Batch(chosen, graphs_of([member]), (member,))
            if faults := faults_of(trained.models[0], batch.graphs.parts[0]):
                error = refusal(faults)
                for number in chosen.tolist():  # all have the same architecture
                    refused(OptionError(error.text, where=names[number], hint=error.hint))
                continue
            rows = _rows(trained, batch)
            for number, row in zip(chosen.tolist(), rows):
                name = names[number]
                found[name] = Prediction(name, family, family.weights[number], unseen, **row)
    return [found[name] for name in files if name in found]


def _rows(trained: Trained, batch: Batch) -> list[dict[str, Tensor]]:
    """What is predicted of each network of a batch of one architecture."""
    if trained.predicts == "edits":
        edits = edited_weights(trained.models[0](batch.graphs), batch)[0]
        return [{"edited": row} for row in edits]
    outputs = [model(batch.graphs).float() for model in trained.models]
    if trained.target:
        values = torch.cat(outputs, dim=1).sigmoid()  # [networks, models]
        return [{"values": row} for row in values]
    return [{"probabilities": row} for row in outputs[0].softmax(-1)]


def _families(
    read: Callable[[str], Compilation], files: Sequence[str], refused: Callable[[NgcError], None]
) -> Iterator[tuple[Family, list[str]]]:
    """The networks by architecture."""
    groups: dict[str, list[tuple[str, Compilation]]] = {}
    for name in dict.fromkeys(files):
        try:
            one = read(name)
        except NgcError as error:
            named = name in error.text
            refused(error if named else NgcError(error.text, where=name, hint=error.hint))
        else:
            groups.setdefault(one.plan.hash, []).append((name, one))
    for group in groups.values():
        weights = torch.stack([one.weights.float() for _, one in group])
        yield Family(group[0][1], weights), [name for name, _ in group]


def _compiled(trained: Trained, inputs: Any, name: str) -> Compilation:
    """A network as the model's training networks were compiled."""
    try:
        return compile(name, inputs, options=trained.options)
    except OptionError as error:
        if not error.hint.startswith("--kernel "):
            raise
        size = error.hint.removeprefix("--kernel ").removesuffix(" or larger")
        hint = f"a model that was trained with graph.kernel: {size}"
        raise OptionError(error.message, where=error.where, hint=hint) from error


def save_edits(found: Sequence[Prediction], folder: Path, kept: Sequence[str] = ()) -> list[Path]:
    """Write the edited networks into a folder, under the names of their files; where they lie.
    Neither these nor the files ``kept`` are overwritten."""
    paths = [folder / f"{Path(one.file).stem}.onnx" for one in found]
    sources: dict[Path, str] = {}
    for path, one in zip(paths, found):
        if sources.setdefault(path, one.file) != one.file:
            both = f"{sources[path]} and {one.file} would both be called {path.name}"
            raise OptionError(both, where=str(folder), hint="one folder for each")
        if path.exists() and any(path.samefile(file) for file in (one.file, *kept)):
            raise OptionError("it would be overwritten", where=str(path), hint="another folder")
    if folder.exists() and not folder.is_dir():
        raise OptionError("it is no folder", where=str(folder), hint="-o DIR")
    folder.mkdir(parents=True, exist_ok=True)
    for path, one in zip(paths, found):
        assert one.edited is not None
        blob = one.family.onnx(one.edited).SerializeToString(deterministic=True)
        write_beside(path, lambda file, blob=blob: file.write(blob))
    return paths
