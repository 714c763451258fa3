"""``lichen evaluate language RUN --text FILE…``: how well a model writes, and what its layers look like.

Bits per byte of held-out text, continuations of it (distinct-n, repetition, loops), and by layer the rank of the states and the
norm of the gradient; ``language.json``, ``language.md`` and ``language.png`` go to ``evaluation/CHECKPOINT`` in the run's folder.

>>> LanguageCommand().examination.samples
200
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from lichen.config import flags, yaml12
from lichen.config.base import Config, load
from lichen.config.errors import UsageError
from lichen.config.evaluation import LanguageEvaluation
from lichen.scripts.command_line import run_module


class LanguageCommand(Config):
    """Measure how a model writes, and its layers, on held-out text: lichen evaluate language RUN --text FILE…."""

    examination: LanguageEvaluation = LanguageEvaluation()
    """What is measured."""
    output: Path | None = None
    """Folder for the results; unset, evaluation/CHECKPOINT in the run's folder."""
    device: str | None = None
    """cuda, mps or cpu; the best there is unless given."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """The precision of weights and cache."""
    quiet: bool = False
    """Print where the results are, without tables."""


def run(argv: list[str]) -> int:
    """Measure what ``argv`` names; words after the run that are no flags are further files of text."""
    arguments = flags.parse(argv, LanguageCommand, "lichen evaluate language")
    if not arguments.positionals:
        raise UsageError("lichen evaluate language takes a run or checkpoint: lichen evaluate language RUN --text FILE")
    spec, *more = arguments.positionals
    command = load(LanguageCommand, flags=arguments.settings)
    settings = command.examination
    settings = settings.model_copy(update={"text": (*settings.text, *map(Path, more))})
    if not settings.text:
        raise UsageError("which text is the model to be measured on? give --text FILE, text it was not trained on")

    from lichen.core.runs import examination_folder, resolve_checkpoint
    from lichen.evaluation import language_report
    from lichen.evaluation.knowledge_report import as_text
    from lichen.evaluation.language import examine
    from lichen.inference import loading

    checkpoint = resolve_checkpoint(spec.removesuffix(loading.AVERAGED))
    model, tokenizer = loading.load(spec, command.device, command.dtype)
    context = trained_length(checkpoint, model.config.max_position_embeddings)
    found = examine(model, tokenizer, settings, context, say=_say)
    about = {"checkpoint": checkpoint.as_posix(), "spec": spec, "dtype": command.dtype}
    output = command.output or examination_folder(checkpoint)
    paths = language_report.write(found, output, f"Language of {checkpoint.name}", about)
    if not command.quiet:
        print(as_text(language_report.tables(found)), end="\n\n")
    print(*(path.as_posix() for path in paths))
    return 0


def trained_length(checkpoint: Path, positions: int) -> int:
    """How many tokens at once the run of a checkpoint trained on, as its run.yaml says; without one, all ``positions``.

    A model can have positions that it never saw in training; what it does there is not what it learnt.
    """
    path = checkpoint.absolute().parent.parent / "run.yaml"
    data: Any = yaml12.read(path) if checkpoint.parent.name == "checkpoints" and path.is_file() else None
    section = data.get("data") if isinstance(data, dict) else None
    length = section.get("sequence_length") if isinstance(section, dict) else None
    return min(length, positions) if isinstance(length, int) else positions


def _say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_module(run, __file__)
