"""How a model is examined.

>>> KnowledgeEvaluation().questions, KnowledgeEvaluation(questions=None).questions
(2000, None)
>>> KnowledgeEvaluation.from_data({"tasks": ["objekt"]})
Traceback (most recent call last):
    ...
lichen.config.errors.ConfigError: 1 problem in the configuration:
  tasks.0 = "objekt": is not among the choices (nearest: object; available: object, relation, verification)
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from lichen.config.base import Config

FactGroup = Literal["seen", "bank only", "added", "unseen relations", "collisions"]
"""Seen in training text, only ever in the bank, added after training, of relations left out of training, and invented facts about
real subjects, added after training: nothing but the bank can know those."""


class KnowledgeEvaluation(Config):
    """Questions about facts, other banks for the same questions, and edits."""

    facts: Path | None = None
    """Facts and patterns by relation (PNNN.jsonl, PNNN.patterns.json), or the folder that fact texts were written to."""
    collisions: Path | None = None
    """A file of invented facts about real subjects; unset, collisions.jsonl among the facts, if it is there."""
    limit: int | None = Field(default=None, ge=1)
    """Facts told in training at most, as for the training text; for facts by relation only."""
    groups: tuple[FactGroup, ...] = ("seen", "bank only", "added", "unseen relations", "collisions")
    """Which facts are asked for; each group is reported apart."""
    tasks: tuple[Literal["object", "relation", "verification"], ...] = ("object", "relation", "verification")
    """Predict the object, choose the relation, tell true from false."""
    wordings: tuple[Literal["trained", "unseen"], ...] = ("trained", "unseen")
    """Sentences used in training, and each relation's last, which is not."""
    questions: int | None = Field(default=2000, ge=1)
    """At most so many facts of each group are asked for, balanced over relations and answers; null: all."""
    generate: bool = True
    """Let the model write answers as well; options alone take half the time."""
    answer_tokens: int = Field(default=8, ge=1)
    """An answer is at most so long, or as long as the longest right one."""
    normalise: Literal["sum", "mean"] = "sum"
    """Compare options by the log-probability of the whole end of the sentence, or by the mean over the object's tokens."""
    context: Path | None = None
    """A text file whose lines are put before the prompts, one line each, as running text."""
    battery_questions: int = Field(default=500, ge=0)
    """So many questions of each group are asked again with other banks; 0: none are."""
    edits: int = Field(default=200, ge=0)
    """So many entries of each group are edited; 0: none are."""
    two_hop_questions: int = Field(default=200, ge=0)
    """So many questions join two facts of the bank, one of them added after training if there are such; 0: none do."""
    prompting: Literal["none", "tfidf", "oracle"] = "none"
    """Put entries of the bank into every prompt, for models trained on text with --texts.quoted, with a memory of their own or
    without: the nearest by TF-IDF, or the right one among these."""
    prompted_entries: int = Field(default=4, ge=1)
    """So many entries at most."""
    require_causal: bool = False
    """End with exit status 1 where the answers do not follow the bank."""
    tokens_per_batch: int = Field(default=4096, ge=1)
    """How many tokens are read at once; more needs more memory and, on a GPU, less time."""
    seed: int = Field(default=0, ge=0)
    """Equal seeds ask equal questions."""


class LanguageEvaluation(Config):
    """Held-out text: how well it is predicted, how the model goes on from it, what its layers look like on it."""

    text: tuple[Path, ...] = ()
    """Files of held-out text: .jsonl with a text per line, .txt in paragraphs; Parquet and folders as for lichen prepare."""
    field: str = Field(default="text", min_length=1)
    """Key of the text in a JSON object."""
    documents: int | None = Field(default=None, ge=1)
    """At most so many documents are read, drawn evenly; null: all."""
    context: int | None = Field(default=None, ge=2)
    """Tokens read at once; longer documents are cut. null: as many as the model was trained on, or else has positions for."""
    samples: int = Field(default=200, ge=0)
    """So many documents are continued, once greedily and once sampled; 0: none are."""
    prompt_tokens: int = Field(default=30, ge=1)
    """Tokens of a document that are given; documents of fewer are not continued."""
    new_tokens: int = Field(default=100, ge=1)
    """Tokens of a continuation at most."""
    temperature: float = Field(default=0.8, gt=0, allow_inf_nan=False)
    """Of the sampled continuations: below 1 makes likely tokens likelier."""
    top_p: float = Field(default=0.95, gt=0, le=1, allow_inf_nan=False)
    """Of the sampled continuations: choose among the fewest most probable tokens whose probabilities reach p; 1: all."""
    layer_tokens: int = Field(default=8192, ge=0)
    """Tokens, from the first documents on, on which layers are looked at; 0: they are not."""
    tokens_per_batch: int = Field(default=4096, ge=1)
    """How many tokens are read at once; more needs more memory and, on a GPU, less time."""
    rows: int = Field(default=64, ge=1)
    """How many continuations are written at once."""
    seed: int = Field(default=0, ge=0)
    """Equal seeds choose equal documents and sample equal continuations."""


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
