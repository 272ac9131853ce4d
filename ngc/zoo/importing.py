"""import_zoo: what others publish -> a zoo, shard by shard.

A shard is the unit of work: its members are read one after another, and it is written whole. An
import that was killed goes on with the shards that are missing; several processes write different
shards. Neither changes a byte of the zoo.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ngc.budget import DEFAULT, Budget
from ngc.errors import ModelError, NgcError, OptionError
from ngc.files import write_beside
from ngc.frontends.onnx import FAULTS
from ngc.options import Options
from ngc.zoo.compiling import Compiler, Sizes
from ngc.zoo.dask_workers import written_by_dask
from ngc.zoo.folder import FOLDERS, alone, clear, write_facts
from ngc.zoo.importers.base import Importer, Member
from ngc.zoo.importers.find import Given, find_importer
from ngc.zoo.shards import DTYPES, Shard, read_header, rows_path, table_path
from ngc.zoo.store import FORMAT, Zoo, open_zoo, read_facts
from ngc.zoo.workers import written_by

SHARD = 2048  # networks
SHARD_BYTES = 2**28  # and about so many bytes, where networks are large
PACKAGES = ("ngc", "torch", "onnx")

Progress = Callable[[int, int], None]


def import_zoo(
    source: str | Path,
    folder: str | Path,
    *,
    kind: str | None = None,
    model: Any = None,
    inputs: Any = None,
    table: str | Path | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    max_parameters: int | None = None,
    options: Options | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    budget: Budget = DEFAULT,
    dtype: str = "float32",
    shard: int | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    skip_corrupt: bool = False,
    restart: bool = False,
    progress: Progress = lambda done, total: None,
) -> Zoo:
    """Turn the networks of a folder into a zoo; killed, and called again, it goes on.

    ``kind``: the importer, by default the one that fits the files. ``model``, ``inputs``: the
    architecture of a folder of weights alone, as ``ngc.compile`` takes it. ``table``: a CSV with a
    row for each member. ``where``, ``max_parameters``: which networks of another zoo, by the values
    that columns may have and by size. Of the ``options`` a zoo depends on ``norm`` alone.
    ``shard``: most networks in one. ``workers``: processes; ``scheduler``: address of a
    Dask cluster that does it instead, to the same bytes. ``skip_corrupt`` leaves members out
    that cannot be read, and lists them in skipped.csv. ``restart`` begins anew.
    """
    listed = None if table is None else Path(table)
    given = Given(Path(source), model, inputs, listed, where or {}, max_parameters)
    options = Options(norm=(options or Options()).norm)
    sizes = Sizes(shapes or {}, dims or {})
    if dtype not in DTYPES:
        raise OptionError(f"dtype cannot be {dtype!r}", hint=" or ".join(DTYPES))
    for name, value in (("shard", shard), ("workers", workers)):
        if value is not None and value < 1:
            raise OptionError(f"{name} cannot be {value}", hint="a number from 1")
    folder = Path(folder)
    if given.source.resolve().is_relative_to(folder.resolve()):
        what = f"{given.source} would be overwritten by what is made of it"
        raise OptionError(what, where=str(folder), hint="another folder")
    with alone(folder):
        importer = find_importer(given, kind)
        if restart and importer.names():  # a source without networks is an error, and loses nothing
            clear(folder)
        job = Job(importer, folder, options, dtype, sizes, budget, skip_corrupt)
        facts, compiler = begin(job, shard)
        if not facts["complete"]:
            _write_shards(job, facts, workers, scheduler, compiler, progress)
            finish(job, facts)
        return open_zoo(folder)


@dataclass(frozen=True)
class Job:
    """An import under way; it can be sent to other processes and machines."""

    importer: Importer
    folder: Path
    options: Options
    dtype: str
    sizes: Sizes
    budget: Budget
    skip_corrupt: bool

    def compiler(self) -> Compiler:
        """For one process, ready for the members of this import."""
        made = Compiler(self.folder, self.options, self.dtype, self.sizes, self.budget)
        self.importer.prepare(made)
        return made

    def write(
        self, number: int, members: Sequence[Member], compiler: Compiler,
        read: Callable[[int], None] = lambda done: None,
    ) -> list[tuple[str, str]]:  # fmt: skip
        """Write one shard. Returns its members that cannot be read, and why: if there are any, and
        they are not to be skipped, nothing is written."""
        shard = Shard()
        for done, member in enumerate(members, start=1):
            try:
                network = self.importer.read(member, compiler)
                shard.add(member.name, network.architecture, network.row, network.metadata)
            except NgcError as error:
                shard.skipped.append((member.name, _reason(error, member.name)))
            except (*FAULTS, OSError) as error:  # of whatever reads a damaged file
                reason = f"it cannot be read ({type(error).__name__}: {error})"
                shard.skipped.append((member.name, reason))
            read(done)
        if self.skip_corrupt or not shard.skipped:
            shard.write(self.folder, number, self.dtype)
        return shard.skipped


def _reason(error: NgcError, name: str) -> str:
    """In a line, without the path of the member."""
    where = "" if error.where.endswith(name) else error.where
    text = f"{where}: {error.message}" if where else error.message
    return " ".join(text.split())


# --- beginning and end --------------------------------------------------------------------------


def begin(job: Job, shard: int | None = None) -> tuple[dict[str, Any], Compiler]:
    """zoo.json as it is now, written if there is none, else of the same import; and what this
    process compiles with."""
    names = job.importer.names()
    known = read_facts(job.folder)
    if known is None and any(job.folder.iterdir()):
        raise NgcError("it is no zoo, and not empty", where=str(job.folder), hint="a new folder")
    size = shard or (known or {}).get("shard") or _shard_size(job.importer.member_bytes())
    asked = {
        "importer": job.importer.kind,
        "norm": job.options.norm,
        "dtype": job.dtype,
        "shard": size,
        "members": len(names),
        "names": hashlib.sha256("\n".join(names).encode()).hexdigest()[:32],
        "settings": {**_told(job.sizes), **job.importer.settings()},
    }
    if known is not None and _differs(known, asked) and not any(job.folder.glob("shards/*.csv")):
        known = None  # nothing came of the other one
    if known is not None:
        _require_same(job.folder, known, asked)
        return known, job.compiler()
    for name in FOLDERS:
        (job.folder / name).mkdir(exist_ok=True)
    compiler = job.compiler()  # where it fails, nothing has begun
    facts = {
        "format": FORMAT,
        "complete": False,
        "source": str(job.importer.source),
        **asked,
        "notes": job.importer.notes(),
        "versions": {name: version(name) for name in PACKAGES},
        "shards": [{"members": min(size, len(names) - k)} for k in range(0, len(names), size)],
    }
    write_facts(job.folder, facts)
    return facts, compiler


def _told(sizes: Sizes) -> dict[str, str]:
    shapes = {f"shape {name}": "x".join(map(str, s)) for name, s in sizes.shapes.items()}
    return {**shapes, **{f"dim {name}": str(size) for name, size in sizes.dims.items()}}


def _shard_size(member_bytes: int) -> int:
    return max(1, min(SHARD, SHARD_BYTES // max(1, member_bytes)))


WORDS = {"names": "other names of members", "members": "another number of members"}


def _differs(known: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    return [name for name in asked if known.get(name) != asked[name]]


def _require_same(folder: Path, known: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """An import goes on only where it would have come to the same."""
    differ = _differs(known, asked)
    if differ:
        told = (WORDS.get(name, f"{name} {known.get(name)}, not {asked[name]}") for name in differ)
        raise NgcError(
            f"it holds another import: {'; '.join(told)}",
            where=str(folder),
            hint="another folder, or --restart, which replaces what is there",
        )


def finish(job: Job, facts: dict[str, Any]) -> None:
    """List what was skipped, and say that the zoo is complete."""
    skipped: list[tuple[str, str]] = []
    for number, shard in enumerate(facts["shards"]):
        left_out = read_header(rows_path(job.folder, number))[1]
        skipped += left_out
        shard["networks"] = shard["members"] - len(left_out)
    if not any(shard["networks"] for shard in facts["shards"]):
        raise Unreadable(skipped, "the import", "")
    if skipped:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("name", "reason"), *skipped])
        write_beside(job.folder / "skipped.csv", lambda file: file.write(text.getvalue().encode()))
    facts["skipped"] = len(skipped)
    facts["complete"] = True
    write_facts(job.folder, facts)


# --- the shards ---------------------------------------------------------------------------------


def _write_shards(
    job: Job,
    facts: Mapping[str, Any],
    workers: int,
    scheduler: str | None,
    compiler: Compiler,
    progress: Progress,
) -> None:
    """Write those that are missing; an error names the corrupt members of the first one that has
    some."""
    bounds = []
    done = start = 0
    for number, shard in enumerate(facts["shards"]):
        if table_path(job.folder, number).is_file():
            done += shard["members"]
        else:
            bounds.append((number, start, start + shard["members"]))
        start += shard["members"]
    total = start
    progress(done, total)
    tasks = ((number, job.importer.members(*ends)) for number, *ends in bounds)
    count = min(workers, len(bounds))

    def within(read: int) -> None:
        progress(done + read, total)

    if scheduler is not None:
        written = written_by_dask(scheduler, job, tasks)
    elif count > 1:
        written = written_by(count, job, tasks)
    else:
        written = _written_here(job, tasks, compiler, within)
    for number, members, found in written:
        _require_readable(job, number, found)
        done += len(members)
        progress(done, total)


def _written_here(
    job: Job,
    tasks: Iterator[tuple[int, list[Member]]],
    compiler: Compiler,
    read: Callable[[int], None],
) -> Iterator[tuple[int, Sequence[Member], list[tuple[str, str]]]]:
    """As ``written_by`` does, in this process; ``read`` hears of every member."""
    for number, members in tasks:
        yield number, members, job.write(number, members, compiler, read)


def _require_readable(job: Job, number: int, found: Sequence[tuple[str, str]]) -> None:
    if not found or job.skip_corrupt:
        return
    hint = (
        "mend them and import again, which goes on after the shards that are done; or "
        "--skip-corrupt leaves them out"
    )
    if len(found) == len(job.importer.names()) > 1:
        hint = f"that is every one: are they {job.importer.kind}? see --kind, --model and --input"
    raise Unreadable(found, f"shard {number:05d}", hint)


class Unreadable(ModelError):
    """Members that cannot be read; those with one reason stand together."""

    def __init__(self, found: Sequence[tuple[str, str]], what: str, hint: str) -> None:
        reasons: dict[str, list[str]] = {}
        for name, reason in found:
            reasons.setdefault(reason, []).append(name)
        lines = [f"  {', '.join(names)}: {reason}" for reason, names in reasons.items()]
        count = f"{len(found):,} of the members of {what} cannot be read"
        super().__init__("\n".join([count, *lines]), hint=hint)
