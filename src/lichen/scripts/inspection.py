"""``lichen inspect PATH``: what a data set, shard, run, checkpoint or recipe is, in one screen.

The kind is told from what lies there. Nothing is loaded that is not shown: a recipe's model is built on the meta device, a
checkpoint is read by its headers, a data set by its statistics. Damage is said, with the file's name.

    lichen inspect RECIPE... --iso-parameters OTHER   what makes the model of RECIPE... as large as that of OTHER
    lichen inspect RECIPE... --iso-flops OTHER        what makes it cost as much per token

>>> print(show({"Parameters": {"total": 1234567, "embedding": 1000}}))
Parameters
  total      1,234,567
  embedding      1,000
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.config import flags, yaml12
from lichen.config.base import Config, load
from lichen.config.errors import UsageError, nearest
from lichen.scripts.command_line import run_module

if TYPE_CHECKING:
    from lichen.config.model import ModelConfig
    from lichen.scripts.train import TrainRecipe

Facts = dict[str, dict[str, Any]]


class InspectCommand(Config):
    """Show what lies at PATH: a prepared data set, a shard, a run (RUN, RUN@best, …), a checkpoint or a recipe."""

    json_output: bool = False
    """Print the facts as JSON."""
    iso_parameters: tuple[Path, ...] = ()
    """Another recipe, or several merged: what gives the model of the recipes at PATH, merged as well, as many parameters."""
    iso_flops: tuple[Path, ...] = ()
    """The same for floating-point operations per token, search and reading included."""


def run(argv: list[str]) -> int:
    """Print the facts of every path given."""
    arguments = flags.parse(argv, InspectCommand, "lichen inspect", {"json": "json_output"})
    command = load(InspectCommand, flags=arguments.settings, environment={})
    if not arguments.positionals:
        raise UsageError("lichen inspect needs a path: a data set, a shard, a run, a checkpoint or a recipe")
    if command.iso_parameters or command.iso_flops:
        return _run_iso(command, arguments.positionals)
    for spec in arguments.positionals:
        kind, facts = inspect(spec)
        if command.json_output:
            print(json.dumps({"path": spec, "kind": kind, **facts}, ensure_ascii=False, indent=1, default=str))
        else:
            print(f"{spec}: {kind}\n{show(facts)}\n")
    return 0


def inspect(spec: str) -> tuple[str, Facts]:
    """The kind of what ``spec`` names and its facts, by heading. Raises UsageError where it is none of the kinds."""
    from lichen.core.runs import is_run, resolve_checkpoint

    path = Path(spec)
    if path.suffix in (".yaml", ".yml"):
        return _recipe(path)
    if path.is_dir() and (path / "prepare.yaml").is_file():
        return "prepared data", _prepared(path)
    if path.name.startswith("shard_") and path.is_file():
        return "shard", _shard(path)
    if is_run(path) or is_run(Path("runs") / path):
        return "run", _run(path if is_run(path) else Path("runs") / path)
    if (path / "config.json").is_file() or "@" in spec:
        return "checkpoint", _checkpoint(resolve_checkpoint(spec))
    if path.exists():
        raise UsageError(f"{path}: neither a prepared data set, a shard, a run, a checkpoint nor a recipe (.yaml)")
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    raise UsageError(f"{path}: there is no such file or folder{nearest(path.name, names)}")


def show(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """Facts as aligned text; numbers to the right."""
    lines = []
    for heading, values in facts.items():
        lines.append(heading)
        shown = {name: _shown(value) for name, value in values.items()}
        width = max((len(name) for name in shown), default=0)
        numbers = [len(text) for name, text in shown.items() if isinstance(values[name], int | float)]
        for name, text in shown.items():
            right = max(numbers, default=0) if isinstance(values[name], int | float) else 0
            lines.append(f"  {name:<{width}}  {text:>{right}}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def gibibytes(number: int) -> str:
    """Bytes in the unit people think in.

    >>> gibibytes(3 << 29), gibibytes(5 << 20)
    ('1.50 GiB', '5.0 MiB')
    """
    return f"{number / 2**30:.2f} GiB" if number >= 2**29 else f"{number / 2**20:.1f} MiB"


def _recipe(path: Path) -> tuple[str, Facts]:
    data = yaml12.read(path)
    if isinstance(data, dict) and "sources" in data and "train" not in data:
        return "recipe of a preparation", _preparation_recipe(path)
    return "recipe of a training", _training_recipe(path)


def _preparation_recipe(path: Path) -> Facts:
    from lichen.scripts.prepare import PrepareRecipe

    recipe = load(PrepareRecipe, [path], environment={})
    sources = {str(source.path): "present" if source.path.exists() else "NOT FOUND" for source in recipe.sources}
    return {"Sources": sources, "Result": {"output": recipe.output, "tokenizer": recipe.tokenizer.vocab_size}}


def _training_recipe(path: Path) -> Facts:
    recipe, model = _read_training([path])
    return _model_facts(model, recipe.train.batch_size // recipe.train.accumulation, recipe.data.sequence_length)


def _read_training(paths: Sequence[Path]) -> tuple[TrainRecipe, ModelConfig]:
    """The recipes merged, and the model with the vocabulary it will have."""
    from lichen.config.prepare import TokenizerConfig
    from lichen.dataset.tokenizer import Tokenizer
    from lichen.scripts.train import TrainRecipe

    recipe = load(TrainRecipe, paths, environment={})
    model = recipe.model
    if model.vocab_size is None and recipe.data.path is not None and (recipe.data.path / "tokenizer").is_dir():
        model = model.with_vocabulary(Tokenizer.load(recipe.data.path / "tokenizer").vocab_size)
    elif model.vocab_size is None:  # the data is yet to be prepared: what a preparation makes unless told otherwise
        model = model.with_vocabulary(TokenizerConfig().vocab_size)
    return recipe, model


def _run_iso(command: InspectCommand, positionals: Sequence[str]) -> int:
    """Print what makes the model of ``positionals`` equal to the other one."""
    if command.iso_parameters and command.iso_flops:
        raise UsageError("a model is made equal in one respect: give --iso-parameters or --iso-flops, not both")
    others = command.iso_parameters or command.iso_flops
    kind = "parameters" if command.iso_parameters else "FLOPs per token"
    paths = [*flags.existing_files(positionals, "recipe"), *flags.existing_files(map(str, others), "recipe")]
    settings, rows = compare_sizes(
        paths[: len(positionals)], paths[len(positionals) :], by_flops=not command.iso_parameters
    )
    if command.json_output:
        print(json.dumps({"settings": settings, **rows}, ensure_ascii=False, indent=1))
        return 0
    print(f"{' + '.join(positionals)}: as many {kind} as {' + '.join(map(str, others))}\n{_table(rows)}\n")
    told = " ".join(f"--model.{path} {json.dumps(value)}" for path, value in settings.items())
    print(f"set: {told}" if settings else "they are as near to each other as they can be")
    return 0


def compare_sizes(
    recipes: Sequence[Path], others: Sequence[Path], *, by_flops: bool
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The settings that make the model of ``recipes`` equal to that of ``others``, in parameters or operations per token; and
    the measures of both and of the model so set, each with the difference to the other in percent.
    """
    from dataclasses import asdict

    from lichen.model.iso import changes, differences, fit, measure

    recipe, model = _read_training(recipes)
    length = recipe.data.sequence_length
    target = measure(_read_training(others)[1], length)
    fitted = fit(model, target, "flops_per_token" if by_flops else "trainable", length)
    rows: dict[str, dict[str, Any]] = {"other": asdict(target)}
    for name, config in (("as it is", model), ("so set", fitted)):
        found = measure(config, length)
        rows[name] = asdict(found) | {"differences": differences(found, target)}
    return changes(model, fitted), rows


def _table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """One line per model, with the differences in percent beside the numbers."""
    names = {"trainable": "trainable", "active": "active", "flops_per_token": "FLOPs per token", "bank_bytes": "bank"}
    cells = [["", *(cell for title in names.values() for cell in (title, ""))]]
    for heading, row in rows.items():
        cells.append([heading])
        for name in names:
            difference = row.get("differences", {}).get(name)
            cells[-1].append(gibibytes(row[name]) if name == "bank_bytes" else f"{row[name]:,}")
            cells[-1].append("" if difference is None else f"{difference:+.2f} %")
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in cells]
    return "\n".join("  " + "  ".join(line).rstrip() for line in lines)


def _model_facts(model: Any, rows: int, length: int) -> Facts:
    """Parameters and memory, without allocating; ``rows`` × ``length`` tokens are a micro-batch."""
    from lichen.model.size import count, flops_per_token, training_memory

    size = count(model)
    memory = training_memory(model, rows=rows, length=length)
    parts = {name: number for name, number in size.by_part.items() if number}
    return {
        "Parameters": {"total": size.total, "trainable": size.trainable, "active per token": size.active, **parts},
        "Compute": {
            "FLOPs per token, forward": flops_per_token(model, length),
            "FLOPs per token, training": 3 * flops_per_token(model, length),
        },
        f"Memory in training, {rows} × {length} tokens in a micro-batch (estimate)": {
            "weights": gibibytes(memory.weights),
            "gradients": gibibytes(memory.gradients),
            "optimizer": gibibytes(memory.optimizer),
            "activations": gibibytes(memory.activations),
            "logits": gibibytes(memory.logits),
            "total": gibibytes(memory.total),
        },
    }


def _prepared(path: Path) -> Facts:
    from lichen.core.folders import verify

    statistics = json.loads((path / "statistics.json").read_text(encoding="utf-8"))
    cleaning = statistics["cleaning"]
    facts: Facts = {"State": {"damage": "; ".join(verify(path)) or "none"}}
    for split, counts in statistics["splits"].items():
        facts[f"{split.capitalize()}"] = dict(counts)
        for name, splits in statistics["sources"].items():
            if splits[split]["documents"]:
                words = f"{splits[split]['documents']:,} documents, {splits[split]['tokens']:,} tokens"
                facts[split.capitalize()][f"of {name}"] = words
    facts["Cleaning"] = {"read": cleaning["read"], "kept": cleaning["kept"], **cleaning["dropped"]}
    facts["Length of documents, in tokens"] = statistics["lengths"]
    vocabulary = statistics["vocabulary"]
    facts["Vocabulary"] = {name: vocabulary[name] for name in ("size", "used", "rare")}
    return facts


def _shard(path: Path) -> Facts:
    import numpy as np

    from lichen.dataset.shards import Prepared

    folder = next((parent for parent in path.parents if (parent / "prepare.yaml").is_file()), None)
    if folder is None:
        raise UsageError(f"{path}: a shard is read through the prepared folder it lies in, and there is none above it")
    prepared = Prepared.open(folder, verify=False)
    split = "train" if path.parent.parent.name == "train" else "validation"
    source = path.parent.name
    documents = next(found for found in prepared.documents(split) if found.name == source)
    lengths = np.asarray(documents.lengths)
    return {
        "File": {"bytes": path.stat().st_size, "split": split, "source": source},
        "All shards of this source": {
            "documents": len(documents),
            "tokens": int(lengths.sum()),
            "shortest document": int(lengths.min()),
            "median document": float(np.median(lengths)),
            "longest document": int(lengths.max()),
        },
        "First tokens": {"ids": " ".join(map(str, documents.tokens(0)[:24]))},
    }


def _run(folder: Path) -> Facts:
    from lichen.core.folders import verify
    from lichen.core.runs import Run, step_of
    from lichen.metrics import records

    found = Run(folder)
    rows = records.read(found.metrics) if found.metrics.is_file() else []
    facts: Facts = {}
    for kind in ("train", "validation"):
        last = next((row for row in reversed(rows) if row["type"] == kind), None)
        if last is not None:
            facts[f"Last {kind} row"] = {name: value for name, value in last.items() if name != "type"}
    best = found.read_best()
    facts["Checkpoints"] = {
        f"step {step_of(checkpoint):,}": (verify(checkpoint) or ["whole"])[0]
        + (" (best)" if best is not None and best.checkpoint == checkpoint.name else "")
        for checkpoint in found.checkpoint_folders()
    } or {"none": "yet"}
    return facts


def _checkpoint(folder: Path) -> Facts:
    from lichen.core.folders import MANIFEST, verify
    from lichen.model.weights import read_config

    model = read_config(folder)
    facts = _model_facts(model, 1, min(512, model.max_position_embeddings))
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")
    facts["Model"] = {name: getattr(model, name) for name in shape} | {"feed_forward": model.feed_forward.kind}
    state = folder / "training" / "state.json"
    if state.is_file():
        saved = json.loads(state.read_text(encoding="utf-8"))
        facts["Training"] = {name: value for name, value in saved.items() if isinstance(value, str | int | float)}
    facts["Files"] = {
        entry.relative_to(folder).as_posix(): gibibytes(entry.stat().st_size)
        for entry in sorted(folder.rglob("*"))
        if entry.is_file()
    }
    if (folder / MANIFEST).is_file():
        facts["State"] = {"damage": "; ".join(verify(folder)) or "none"}
    return facts


if __name__ == "__main__":
    run_module(run, __file__)
