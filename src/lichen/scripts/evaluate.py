"""``lichen evaluate KIND RUN …``: what a model can do, with yardsticks and intervals.

    lichen evaluate knowledge RUN --facts FOLDER

asks for facts in groups (seen in text, bank only, added, of unseen relations, collisions), exchanges the bank under the same
questions, edits entries, and says whether the answers follow the bank. JSON with every outcome, Markdown, a page and a picture
are written to ``evaluation/CHECKPOINT`` in the run's folder. With ``--prompting tfidf|oracle`` the model gets entries of the bank
in its prompt, whether it has a memory of its own or not.

    lichen evaluate language RUN --text FILE

is `lichen.scripts.evaluate_language`.

>>> sorted(KINDS)
['knowledge', 'language']
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from lichen.config import flags
from lichen.config.base import Config, load
from lichen.config.errors import LichenError, UsageError, nearest
from lichen.config.evaluation import KnowledgeEvaluation
from lichen.scripts import evaluate_language
from lichen.scripts.command_line import run_module

SUMMARY = "examine a model: what it knows, and whether it reads it"


class KnowledgeCommand(Config):
    """Examine what a model knows and whether its answers follow its bank: lichen evaluate knowledge RUN --facts FOLDER."""

    examination: KnowledgeEvaluation = KnowledgeEvaluation()
    """What is asked."""
    output: Path | None = None
    """Folder for the results; unset, evaluation/CHECKPOINT in the run's folder."""
    device: str | None = None
    """cuda, mps or cpu; the best there is unless given."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """The precision of weights and cache."""
    quiet: bool = False
    """Print the verdict and where the results are, without tables."""


def run(argv: list[str]) -> int:
    """Run the examination that ``argv`` names; its exit status."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    kind, *rest = argv
    if kind not in KINDS:
        raise UsageError(f"lichen evaluate: no such examination {kind!r}{nearest(kind, KINDS)}")
    return KINDS[kind][0](rest)


def usage() -> str:
    """The text of ``lichen evaluate --help``."""
    width = max(map(len, KINDS))
    lines = [f"  {name:<{width}}  {KINDS[name][1]}" for name in KINDS]
    return "\n".join(
        [
            "usage: lichen evaluate KIND RUN [--setting VALUE …]",
            "",
            *lines,
            "",
            "lichen evaluate KIND --help shows every setting.",
        ]
    )


def knowledge(argv: list[str]) -> int:
    """Examine a model's knowledge; 1 with ``--require-causal`` where the answers do not follow the bank."""
    arguments = flags.parse(argv, KnowledgeCommand, "lichen evaluate knowledge")
    command = load(KnowledgeCommand, flags=arguments.settings)
    if len(arguments.positionals) != 1:
        raise UsageError(
            "lichen evaluate knowledge takes one run or checkpoint: lichen evaluate knowledge RUN --facts F"
        )
    settings = command.examination
    if settings.facts is None:
        raise UsageError("which facts are to be asked for? give --facts FOLDER (facts and patterns by relation)")
    contexts = read_contexts(settings.context)

    from lichen.core.runs import examination_folder, resolve_checkpoint
    from lichen.evaluation import knowledge_report
    from lichen.evaluation.continuation import ModelContinuations
    from lichen.evaluation.fact_groups import fact_groups, read_material
    from lichen.evaluation.health import MemoryHealth
    from lichen.evaluation.knowledge import examine
    from lichen.evaluation.model_memory import ModelMemory
    from lichen.inference import loading

    spec = arguments.positionals[0]
    checkpoint = resolve_checkpoint(spec.removesuffix(loading.AVERAGED))
    material = read_material(settings.facts, settings.collisions, settings.limit)
    model, tokenizer = loading.load(spec, command.device, command.dtype)
    answerer = ModelContinuations(
        model, tokenizer, normalise=settings.normalise, tokens_per_batch=settings.tokens_per_batch
    )
    found = examine(
        answerer,
        ModelMemory.of(model, tokenizer),
        fact_groups(material.split, material.collisions),
        material.relations,
        settings,
        contexts=contexts,
        watcher=MemoryHealth.of(model, tokenizer, checkpoint),
        say=lambda text: print(f"… {text}", file=sys.stderr, flush=True),
    )
    output = command.output or examination_folder(checkpoint)
    about = {"checkpoint": checkpoint.as_posix(), "spec": spec, "dtype": command.dtype}
    paths = knowledge_report.write(found, output, f"Knowledge of {checkpoint.name}", about)
    if not command.quiet:
        print(knowledge_report.as_text(knowledge_report.tables(found)), end="\n\n")
    print(knowledge_report.verdict_of(found))
    print(*(path.as_posix() for path in paths))
    return 1 if settings.require_causal and not (found.verdict and found.verdict.follows) else 0


def read_contexts(path: Path | None) -> list[str]:
    """The lines of a file that are not empty; none without a file."""
    if path is None:
        return []
    flags.existing_files([str(path)], "file of running text")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LichenError(f"{path}: can not be read as UTF-8 text ({error}); convert the file") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise UsageError(f"{path}: holds no line of text")
    return found


KINDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "knowledge": (knowledge, "facts: asked for, exchanged, edited; do the answers follow the bank?"),
    "language": (evaluate_language.run, "held-out text: bits per byte, continuations of it, and the layers on it"),
}
"""Kind of examination → (its function, what it does)."""


if __name__ == "__main__":
    run_module(run, __file__)
