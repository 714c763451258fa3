"""A run folder: everything about one training, each thing under one known name.

``latest`` is found among the checkpoints, never stored, so no crash can make it point at nothing; ``best.json`` names
one by its score. Damaged checkpoints are named in the log and passed over; when every one is damaged that is an error,
never a silent start at step 0. ``RUN``, ``RUN@latest``, ``RUN@best``, ``RUN@step-2000`` name checkpoints everywhere.

>>> import datetime
>>> run_name("lichen", 26_120_000, "dense", 64, 5e-4, datetime.datetime(2026, 11, 21, 21, 40))
'lichen-26m_dense_bs64_lr5e-4_1121-2140'
>>> step_of(Path("lichen-26m_dense_step_0002000"))
2000
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from lichen.config.errors import LichenError, UsageError, nearest
from lichen.core.folders import MANIFEST, fsync_folder, make_folder, verify, write_file

_log = logging.getLogger("lichen.runs")
LONGEST_NAME = 160
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,159}")
AVERAGES = "training/averages.safetensors"
"""Where in a checkpoint the averaged weights lie, if the training kept any."""
_STEP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*_step_(\d{7,})")


@dataclass(frozen=True)
class Best:
    """Which checkpoint is best, by which score; lower is better unless the metric's name says otherwise."""

    checkpoint: str
    step: int
    metric: str
    score: float


class Run:
    """One run folder and the names in it. Making the object touches nothing; `create` and `open` do."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.run_yaml = self.folder / "run.yaml"
        self.environment_json = self.folder / "environment.json"
        self.metrics = self.folder / "metrics.jsonl"
        self.samples = self.folder / "samples.md"
        self.report = self.folder / "report.html"
        self.logs = self.folder / "logs"
        self.plots = self.folder / "plots"
        self.checkpoints = self.folder / "checkpoints"
        self.best_json = self.checkpoints / "best.json"

    @classmethod
    def create(cls, runs: str | Path, name: str) -> Run:
        """A new run folder below ``runs``; a taken name gets ``-2``, ``-3``, … Raises `UsageError` on a bad name."""
        check_run_name(name)
        runs = Path(runs)
        make_folder(runs)
        for number in range(1, 10_000):
            end = f"-{number}" if number > 1 else ""
            folder = runs / (name[: LONGEST_NAME - len(end)] + end)
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            fsync_folder(runs)
            run = cls(folder)
            run.make_folders()
            return run
        raise UsageError(f"{runs / name}: taken ten thousand times; choose another name")

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """The run at ``folder`` (a path, or a name below ``runs/``); raises `UsageError` with the nearest names."""
        for candidate in (Path(folder), Path("runs") / folder):
            if is_run(candidate):
                return cls(candidate)
        raise UsageError(f"{folder}: no such run{nearest(str(folder), _runs_near(Path(folder)))}")

    def make_folders(self) -> None:
        """Make the folders a training writes to; those that exist are left alone."""
        for folder in (self.logs, self.plots, self.checkpoints):
            make_folder(folder)

    def log_file(self, verb: str, now: datetime.datetime | None = None) -> Path:
        """``logs/VERB_DATE.log``."""
        return self.logs / f"{verb}_{now or datetime.datetime.now():%Y%m%d-%H%M%S}.log"

    def checkpoint_folder(self, step: int, prefix: str = "lichen") -> Path:
        """Where the checkpoint of ``step`` is or will be."""
        return self.checkpoints / f"{prefix}_step_{step:07d}"

    def checkpoint_folders(self) -> list[Path]:
        """All checkpoints by step, oldest first, whole or not; temporary siblings are not among them."""
        if not self.checkpoints.is_dir():
            return []
        found = [p for p in self.checkpoints.iterdir() if _STEP.fullmatch(p.name) and p.is_dir()]
        return sorted(found, key=lambda p: (step_of(p), p.name))

    def latest(self) -> Path:
        """The newest whole checkpoint. Damaged ones are logged by file and cause, and left for a person to look at.

        Raises:
            LichenError: there is none, or all are damaged.
        """
        folders = self.checkpoint_folders()
        if not folders:
            raise LichenError(f"{self.checkpoints}: no checkpoint yet; start the training anew from {self.run_yaml}")
        for folder in reversed(folders):
            problems = verify(folder)
            if not problems:
                return folder
            _log.warning("%s is damaged and passed over: %s", folder, "; ".join(problems[:4]))
        raise LichenError(
            f"{self.checkpoints}: all {len(folders)} checkpoints are damaged (newest: {verify(folders[-1])[0]}); "
            "restore one from a copy, or start a new run"
        )

    def best(self) -> Path:
        """The checkpoint that ``best.json`` names; raises `LichenError` when there is none or it is damaged."""
        best = self.read_best()
        if best is None:
            raise LichenError(
                f"{self.best_json}: no best checkpoint yet (none was validated); use {self.folder}@latest"
            )
        folder = self.checkpoints / best.checkpoint
        if problems := verify(folder):
            raise LichenError(f"{folder}: damaged ({problems[0]}); use {self.folder}@latest")
        return folder

    def read_best(self) -> Best | None:
        """What ``best.json`` says; None when there is no such file."""
        try:
            data = json.loads(self.best_json.read_text(encoding="utf-8"))
            best = Best(str(data["checkpoint"]), int(data["step"]), str(data["metric"]), float(data["score"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LichenError(f"{self.best_json}: unreadable ({error}); remove it, or use @latest") from None
        if not _STEP.fullmatch(best.checkpoint):
            raise LichenError(
                f"{self.best_json}: checkpoint: {best.checkpoint!r} is not a checkpoint's name; remove it"
            )
        return best

    def write_best(self, best: Best) -> None:
        """Replace ``best.json`` in one step."""
        write_file(self.best_json, json.dumps(asdict(best), indent=1) + "\n")


def is_run(folder: Path) -> bool:
    """Whether a folder looks like a run."""
    return (folder / "checkpoints").is_dir() or (folder / "run.yaml").is_file()


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint folder's name."""
    found = _STEP.fullmatch(checkpoint.name)
    if not found:
        raise UsageError(f"{checkpoint}: not a checkpoint's name (…_step_0002000)")
    return int(found[1])


def run_name(
    model: str, parameters: int, variant: str, batch: int, lr: float, when: datetime.datetime | None = None
) -> str:
    """``lichen-26m_dense_bs64_lr5e-4_1121-2140``, always a valid name of at most 160 characters.

    ``batch`` is the global batch in rows. Other characters become ``-``; a name that is too long loses the end of model
    and variant, and gets eight hexadecimal digits of the hash of the whole in their place.
    """
    when = when or datetime.datetime.now()
    head = f"{_plain(model)}-{size_name(parameters)}_{_plain(variant)}"
    tail = f"_bs{batch}_lr{_plain_number(lr)}_{when:%m%d-%H%M}"
    if len(head) + len(tail) > LONGEST_NAME:
        digest = hashlib.sha256(head.encode()).hexdigest()[:8]
        head = head[: LONGEST_NAME - len(tail) - 9] + "-" + digest
    return check_run_name(head + tail)


def check_run_name(name: str) -> str:
    """``name`` itself; raises `UsageError` if it is not ``[A-Za-z0-9._-]{1,160}`` or begins with ``-`` or ``.``."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r}: not a run's name; use 1 to 160 of A-Z a-z 0-9 . _ - and begin with none of . -")
    return name


def size_name(parameters: int) -> str:
    """A parameter count in a word.

    >>> [size_name(n) for n in (64, 5_400, 999_600, 26_120_000, 1_240_000_000)]
    ['64', '5k', '1m', '26m', '1.2b']
    """
    for unit, letter in ((1e9, "b"), (1e6, "m"), (1e3, "k")):
        if parameters >= 0.9995 * unit:
            value = parameters / unit
            return f"{value:.1f}{letter}" if letter == "b" and value < 10 else f"{value:.0f}{letter}"
    return str(parameters)


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "model"


def _plain_number(value: float) -> str:
    mantissa, exponent = f"{value:.6e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def examination_folder(checkpoint: Path) -> Path:
    """``evaluation/CHECKPOINT`` in the run that a checkpoint lies in, else in the working folder.

    >>> examination_folder(Path("runs/a/checkpoints/lichen_step_0000010")).as_posix()
    'runs/a/evaluation/lichen_step_0000010'
    """
    inside = checkpoint.parent.name == "checkpoints"
    return (checkpoint.parent.parent if inside else Path()) / "evaluation" / checkpoint.name


def resolve_checkpoint(spec: str | Path) -> Path:
    """The checkpoint folder that ``spec`` names: ``RUN``, ``RUN@latest``, ``RUN@best``, ``RUN@step-N``, or a folder.

    ``RUN`` is a run folder or a run's name below ``runs/``. A folder with a manifest is verified; a model folder from
    elsewhere has none and is returned as it is.

    Raises:
        UsageError: no such run or step; the nearest names are shown.
        LichenError: what it names is damaged.
    """
    folder = Path(spec)
    if (folder / "config.json").is_file() or (folder / MANIFEST).is_file():
        if (folder / MANIFEST).is_file() and (problems := verify(folder)):
            raise LichenError(f"{folder}: damaged ({problems[0]}); use another checkpoint of the run")
        return folder
    if is_run(folder) or "@" not in os.fspath(spec):
        return Run.open(folder).latest()
    name, _, which = os.fspath(spec).rpartition("@")
    run = Run.open(name)
    if which in ("", "latest"):
        return run.latest()
    return run.best() if which == "best" else _at_step(run, which)


def _at_step(run: Run, which: str) -> Path:
    found = {f"step-{step_of(p)}": p for p in run.checkpoint_folders()}
    number = re.fullmatch(r"step-0*(\d+)", which)
    folder = found.get(f"step-{number[1]}") if number else None
    if folder is None:
        raise UsageError(f"{run.folder}@{which}: no such checkpoint{nearest(which, ['latest', 'best', *found])}")
    if problems := verify(folder):
        raise LichenError(f"{folder}: damaged ({problems[0]}); use {run.folder}@latest")
    return folder


def _runs_near(folder: Path) -> list[str]:
    parents = {folder.parent, Path("runs")}
    return [os.fspath(p) for parent in parents if parent.is_dir() for p in parent.iterdir() if is_run(p)]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
