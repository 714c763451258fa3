"""What reading a bank costs, from 2^10 to 2^20 readable facts: a training step beside a dense model's, and its parts.

    python benchmarks/knowledge.py                        all sizes, median of 20 steps each
    python benchmarks/knowledge.py --sizes 14 20 --json   two of them, {bar: {value, bar, ok}}

Facts are made here: names of syllables, four relations each of forty, the n-th of which is met 1/n as often as the first, towns
for objects; their texts are tokenised by a tokenizer trained on them. The model has six layers 256 wide and reads 16 × 256 tokens
in bfloat16; one layer reads, at every position (the null slot is held far behind, so that nothing is skipped), four entries of
sixteen tokens. Steps of both models alternate. The refresh of the index is counted as its seconds divided by ``refresh_every``.

What is found is measured with queries made from keys of the bank: a key drawn at random, each of whose halves is turned by
noise to a cosine of 0.89, about where those of a trained model stand; once with both halves counting alike, once as a model
begins, whose subject half counts more. A query is searched for as the model does it.

    recall@4            of the four entries found, the share whose score reaches the fourth best of all, compared in float32
    right entry first   the share of queries whose first entry has the key that the query was made of. The bar: among 2^20 facts
                        at most two points less than among 2^14. It measures the search and the crowding by names that are alike,
                        not how well a model asks. "Far away" is the same at a cosine of 0.71, to show where crowding begins
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from bars import Bar, report

from lichen.config.model import ModelConfig
from lichen.config.training import OptimConfig
from lichen.core.allocation import keep_freed_memory
from lichen.core.batch import Batch
from lichen.core.streams import Stream
from lichen.dataset.bank_arrays import BankArrays
from lichen.dataset.facts import Fact, made_fact
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.memory import entries_of, memory_of
from lichen.model.knowledge import SCALE, Found, Knowledge
from lichen.model.knowledge_bank import KnowledgeBank
from lichen.model.knowledge_search import search_exactly
from lichen.model.language_model import LanguageModel, initialise
from lichen.trainer.optimizers import Optimizer, make_optimizer

ROWS, LENGTH, WIDTH, LAYERS, ENTRY, TOP = 16, 256, 256, 6, 16, 4
REFRESH_EVERY = 100
NEAR, FAR = 0.5, 1.0
"""Noise of the queries, in lengths of a key's half."""
ALIKE = (10.0, 10.0)
ASKED = 512
"""Queries whose recall is measured; comparing each with a million keys takes a while."""
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "en", "or", "il")]
RELATIONS = [
    f"{a} of {b}"
    for a in ("place", "year", "name", "colour", "keeper")
    for b in ("birth", "work", "rest", "song", "boat", "house", "stone", "tree")
]


def made_facts(number: int) -> list[Fact]:
    """``number`` facts: a subject has four relations."""
    draw = random.Random(0)
    weights = [1 / rank for rank in range(1, len(RELATIONS) + 1)]
    word = lambda least, most: "".join(draw.choices(SYLLABLES, k=draw.randint(least, most))).capitalize()  # noqa: E731
    towns = [word(2, 3) for _ in range(2000)]
    facts: list[Fact] = []
    while len(facts) < number:
        name = f"{word(2, 3)} {word(2, 4)}"
        relations: dict[str, None] = {}
        while len(relations) < 4:
            relations |= dict.fromkeys(draw.choices(RELATIONS, weights, k=4 - len(relations)))
        for relation in relations:
            facts.append(made_fact(name, relation, draw.choice(towns), id=f"m{len(facts)}"))
    return facts[:number]


def config(tokenizer: Tokenizer, reading: bool) -> ModelConfig:
    """The model with a layer that reads, or without."""
    part = {
        "kind": "knowledge",
        "beside": {"kind": "dense"},
        "top_k": TOP,
        "knowledge_length": ENTRY,
        "refresh_every": REFRESH_EVERY,
    }
    data = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "feed_forward_by_layer": {str(LAYERS - 2): part} if reading else {},
    }
    return ModelConfig.from_data(data)


def step(model: LanguageModel, optimizer: Optimizer, batch: Batch) -> float:
    """Seconds of forward, backward and update."""
    start = time.perf_counter()
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch)
    output.nll.mean().backward()
    optimizer.set_lr(1e-4)
    optimizer.step()
    return time.perf_counter() - start


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure(power: int, arrays: BankArrays, tokenizer: Tokenizer, repeats: int) -> list[Bar]:
    """One size of bank."""
    dense, reading = (initialise(LanguageModel(config(tokenizer, kind)), 0).train() for kind in (False, True))
    bank = memory_of(reading)
    assert bank is not None
    bank.set_entries(entries_of(arrays.subset(torch.arange(2**power).numpy())))
    torch.nn.init.constant_(layer_of(reading).retrieval.null.bias, -30.0)
    generator = Stream(0, "tokens").torch()
    batch = Batch.of_tokens(torch.randint(0, tokenizer.vocab_size, (ROWS, LENGTH), generator=generator))
    parts = {
        name: (model, make_optimizer(model, OptimConfig())) for name, model in (("dense", dense), ("reading", reading))
    }
    for model, optimizer in parts.values():
        step(model, optimizer, batch)
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats):
        for name, (model, optimizer) in parts.items():
            seconds[name].append(step(model, optimizer, batch))
    own, plain = (statistics.median(seconds[name]) for name in ("reading", "dense"))
    table = reading.model.embed_tokens.weight.detach()
    refresh = timed(lambda: bank._computed(table, torch.bfloat16, bank._cells), 2)
    index = bank.index(table, torch.bfloat16)
    queries, _ = near(index, ROWS * LENGTH, NEAR, ALIKE)
    with torch.no_grad():
        search = timed(lambda: bank.search(queries, index, TOP), 3)
        read = reading_seconds(reading, bank, bank.search(queries, index, TOP), repeats=5)
    label = f"2^{power}"
    return [
        Bar(f"{label} step / dense", (own + refresh / REFRESH_EVERY) / plain, at_most=2.0),
        Bar(f"{label} dense step", plain * 1e3, unit="ms"),
        Bar(f"{label} search", search * 1e3, unit="ms"),
        Bar(f"{label} read, both ways", read * 1e3, unit="ms"),
        Bar(f"{label} refresh", refresh * 1e3, unit="ms"),
        Bar(f"{label} memory of texts and keys' words", size_of(bank.entries) / 2**20, unit="MiB"),
        Bar(f"{label} memory of the index", size_of(index) / 2**20, unit="MiB"),
        Bar(f"{label} memory of the codebooks", size_of(bank._cells) / 2**20, unit="MiB"),
        *findings(label, bank, index),
    ]


def findings(label: str, bank: KnowledgeBank, index: torch.Tensor) -> list[Bar]:
    """What is found, of queries near keys and of some far away."""
    bars = []
    for name, lengths, noise in (("", ALIKE, NEAR), (", subject counts more", SCALE, NEAR), (", far away", ALIKE, FAR)):
        queries, wanted = near(index, ROWS * LENGTH, noise, lengths)
        _, numbers = bank.search(queries, index, TOP)
        if noise == NEAR:
            bars.append(Bar(f"{label} recall@{TOP}{name}", recall(queries, index, numbers), at_least=0.95))
        right = bank.share_key(wanted[:, None], numbers[:, 0]).diagonal()
        bars.append(Bar(f"{label} right entry first{name}", right.float().mean().item()))
    return bars


def recall(queries: torch.Tensor, index: torch.Tensor, numbers: torch.Tensor) -> float:
    """See the module."""
    queries, numbers = queries[:ASKED], numbers[:ASKED]
    exact, _ = search_exactly(queries, index.float(), TOP, None)
    scores = (queries[:, None] * index[numbers].float()).sum(-1)
    return (scores >= exact[:, -1:] - 1e-3).float().mean().item()


def layer_of(model: LanguageModel) -> Knowledge:
    """The layer that reads."""
    part = model.model.layers[LAYERS - 2].mlp
    assert isinstance(part, Knowledge)
    return part


def near(
    index: torch.Tensor, number: int, noise: float, lengths: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """``number`` queries ``[n, d]`` near keys, whose halves have these lengths, and which keys ``[n]``."""
    generator = Stream(0, "queries").torch()
    wanted = torch.randint(0, len(index), (number,), generator=generator)
    halves = index[wanted].float().unflatten(1, (2, -1))
    away = F.normalize(torch.randn(halves.shape, generator=generator), dim=-1)
    return (F.normalize(halves + noise * away, dim=-1) * torch.tensor(lengths)[:, None]).flatten(1), wanted


def reading_seconds(
    model: LanguageModel, bank: KnowledgeBank, found: tuple[torch.Tensor, torch.Tensor], repeats: int
) -> float:
    """Seconds of reading at every position, forward and backward."""
    reader = layer_of(model).reader
    states = torch.randn(ROWS * LENGTH, WIDTH)
    scores, numbers = found
    table = model.model.embed_tokens.weight

    def work() -> None:
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
            what = Found(torch.arange(len(states)), numbers, scores.requires_grad_(), torch.zeros(len(states)))
            reader(states, what, bank, table, None).float().sum().backward()

    return timed(work, repeats)


def size_of(thing: object) -> int:
    """Bytes of the tensors in ``thing``, a tensor or a dataclass of such."""
    if isinstance(thing, torch.Tensor):
        return thing.numel() * thing.element_size()
    if not dataclasses.is_dataclass(thing):
        return 0
    return sum(size_of(getattr(thing, field.name)) for field in dataclasses.fields(thing))


def main() -> int:
    """Measure every size and print the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 12, 14, 16, 18, 20], help="powers of two")
    parser.add_argument("--repeats", type=int, default=20, help="steps of each model")
    parser.add_argument("--json", action="store_true", help="print {bar: {value, bar, ok}}")
    options = parser.parse_args()
    keep_freed_memory()  # as a training does
    facts = made_facts(2 ** max(options.sizes))
    tokenizer = Tokenizer.train([fact.text for fact in facts[:20_000]], vocab_size=4096)
    arrays = BankArrays.of(facts, tokenizer, ENTRY)
    measured = {power: measure(power, arrays, tokenizer, options.repeats) for power in options.sizes}
    bars = [bar for own in measured.values() for bar in own]
    return report(bars + lost(measured))


def lost(measured: dict[int, list[Bar]]) -> list[Bar]:
    """By how many points the right entry is less often the first among 2^20 facts than among 2^14."""
    if not {14, 20} <= measured.keys():
        return []
    few, many = ([bar for bar in measured[power] if "first" in bar.name] for power in (14, 20))
    return [
        Bar(
            f"{before.name.removeprefix('2^14 ')}: lost from 2^14 to 2^20",
            100 * (before.value - after.value),
            at_most=None if "far" in before.name else 2.0,
            unit="points",
        )
        for before, after in zip(few, many, strict=True)
    ]


if __name__ == "__main__":
    raise SystemExit(main())
