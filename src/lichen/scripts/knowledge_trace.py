"""``lichen knowledge trace RUN "prompt"``: for every generated token the facts read, and what would have come without.

>>> shown("\\n"), shown(" moss")
('⏎', ' moss')
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lichen.config import flags
from lichen.config.base import Config, load
from lichen.config.errors import UsageError
from lichen.scripts.knowledge import columns, say

if TYPE_CHECKING:
    from lichen.inference.tracing import Traced


class TraceCommand(Config):
    """What was read for every token: lichen knowledge trace RUN "prompt"."""

    max_new_tokens: int = Field(default=24, ge=1)
    """How many tokens to generate, greedily."""
    least: float = Field(default=0.01, ge=0, le=1)
    """Smallest share of a layer's attention that is shown."""
    output: Path | None = None
    """Write a page (.html) as well."""
    device: str | None = None
    """Where to compute; unless given, the best there is."""


def trace(argv: list[str]) -> int:
    """Print the trace; 0."""
    arguments = flags.parse(argv, TraceCommand, "lichen knowledge trace")
    command = load(TraceCommand, flags=arguments.settings, environment={})
    if len(arguments.positionals) < 2:
        raise UsageError('the form is: lichen knowledge trace RUN "PROMPT"')
    run, *words = arguments.positionals
    prompt = " ".join(words)

    from lichen.core.runs import resolve_checkpoint
    from lichen.dataset.bank import Bank
    from lichen.inference import tracing
    from lichen.inference.loading import load as load_model
    from lichen.inference.memory import find_bank, memory_of

    model, tokenizer = load_model(run, command.device)
    if memory_of(model) is None:
        raise UsageError(f"{run}: the model has no layer of kind knowledge: there is nothing to trace")
    folder = find_bank(resolve_checkpoint(run))
    assert folder is not None  # or loading had failed
    facts = Bank.open(folder).facts
    traced = tracing.trace(model, tokenizer, facts, prompt, command.max_new_tokens, command.least)
    say(prompt + "".join(token.text for token in traced))
    say("")
    say(columns([HEADINGS, *(list(row.values()) for row in rows(traced))]))
    changed = sum(token.changed for token in traced)
    say(f"\n{changed} of {len(traced)} tokens would have been others with an empty bank")
    if command.output is not None:
        write_page(command.output, prompt, traced)
        say(f"page: {command.output}")
    return 0


HEADINGS = ["token", "p", "without", "p without", "layer", "weight", "entry", "text"]


def rows(traced: "list[Traced]") -> list[dict[str, Any]]:
    """A row per token and entry read; tokens without any have one row."""
    found = []
    for token in traced:
        own = [shown(token.text), f"{token.probability:.3f}", shown(token.without), f"{token.probability_without:.3f}"]
        reads = [[read.layer, f"{read.weight:.3f}", read.fact.id, read.fact.text] for read in token.reads]
        for number, read in enumerate(reads or [["", "", "", ""]]):
            found.append(dict(zip(HEADINGS, [*(own if number == 0 else [""] * 4), *read], strict=True)))
    return found


def shown(text: str) -> str:
    """A token's text in a cell."""
    return text.replace("\n", "⏎").replace("\t", "⇥")


def write_page(output: Path, prompt: str, traced: "list[Traced]") -> None:
    """The same as a page."""
    from lichen.metrics.report import Samples, Table, Text, write_report

    note = (
        "p: probability of the token. without: what an empty bank would have given, and the token's probability then. "
        "weight: the entry's share of the layer's attention before its tokens are looked at; the rest went to nothing."
    )
    write_report(
        output,
        "What was read",
        Samples("Text", [("greedy", prompt, "".join(token.text for token in traced))]),
        Table("Token by token", rows(traced), note),
        Text(
            "In short",
            f"{sum(token.changed for token in traced)} of {len(traced)} tokens would have been others with an empty bank.",
        ),
    )


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
