"""What reading a bank costs, from 2^10 to 2^20 readable facts: a training step beside a dense model's, and its parts.

    python benchmarks/knowledge.py                        all sizes, median of 20 steps each
    python benchmarks/knowledge.py --sizes 14 20 --json   two of them, {bar: {value, bar, ok}}

Facts are made here: names of syllables, four relations each of forty, towns for objects; their texts are tokenised by a tokenizer
trained on them. The model has six layers 256 wide and reads 16 × 256 tokens in bfloat16; one layer reads, at every position (the
null slot is held far behind, so that nothing is skipped), four entries of sixteen tokens. Steps of both models alternate. The
refresh of the index is counted as its seconds divided by ``refresh_every``. Recall is against comparing with every key, for
queries that stand as far from a key as those of a trained model (a cosine of about 0.9 in each half).
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
from lichen.core.batch import Batch
from lichen.core.streams import Stream
from lichen.dataset.bank_arrays import BankArrays
from lichen.dataset.facts import Fact, made_fact
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.memory import entries_of, memory_of
from lichen.model.knowledge import Found, Knowledge
from lichen.model.knowledge_bank import KnowledgeBank
from lichen.model.knowledge_search import search_exactly
from lichen.model.language_model import LanguageModel, initialise
from lichen.trainer.optimizers import Optimizer, make_optimizer

ROWS, LENGTH, WIDTH, LAYERS, ENTRY, TOP = 16, 256, 256, 6, 16, 4
REFRESH_EVERY = 100
NOISE = 0.5
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
    word = lambda least, most: "".join(draw.choices(SYLLABLES, k=draw.randint(least, most))).capitalize()  # noqa: E731
    towns = [word(2, 3) for _ in range(2000)]
    facts: list[Fact] = []
    while len(facts) < number:
        name = f"{word(2, 3)} {word(2, 4)}"
        for relation in draw.sample(RELATIONS, 4):
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
    queries, wanted = near(index, ROWS * LENGTH)
    with torch.no_grad():
        search = timed(lambda: bank.search(queries, index, TOP), 3)
        found = bank.search(queries[:ASKED], index, TOP)
        read = reading_seconds(reading, bank, bank.search(queries, index, TOP), repeats=5)
    exact, _ = search_exactly(queries[:ASKED], index, TOP, None)
    recall = (found[0] >= exact[:, -1:] - 0.02 * exact[:, -1:].abs()).float().mean().item()
    hit = (
        bank.share_key(wanted[:ASKED, None], found[1][:, 0])[torch.arange(ASKED), torch.arange(ASKED)]
        .float()
        .mean()
        .item()
    )
    label = f"2^{power}"
    return [
        Bar(f"{label} step / dense", (own + refresh / REFRESH_EVERY) / plain, at_most=2.0),
        Bar(f"{label} dense step", plain * 1e3, unit="ms"),
        Bar(f"{label} search", search * 1e3, unit="ms"),
        Bar(f"{label} read, both ways", read * 1e3, unit="ms"),
        Bar(f"{label} refresh", refresh * 1e3, unit="ms"),
        Bar(f"{label} memory of bank and index", bank_bytes(bank, index) / 2**20, unit="MiB"),
        Bar(f"{label} recall@{TOP}", recall, at_least=0.95),
        Bar(f"{label} right entry first", hit),
    ]


def layer_of(model: LanguageModel) -> Knowledge:
    """The layer that reads."""
    part = model.model.layers[LAYERS - 2].mlp
    assert isinstance(part, Knowledge)
    return part


def near(index: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``number`` queries ``[n, d]`` near keys, and which ``[n]``."""
    generator = Stream(0, "queries").torch()
    wanted = torch.randint(0, len(index), (number,), generator=generator)
    halves = index[wanted].float().unflatten(1, (2, -1))
    noise = F.normalize(torch.randn(halves.shape, generator=generator), dim=-1)
    return 10 * F.normalize(halves + NOISE * noise, dim=-1).flatten(1), wanted


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


def bank_bytes(bank: KnowledgeBank, index: torch.Tensor) -> int:
    """Token ids, keys' ids, and the index."""
    assert bank.entries is not None
    tensors = [getattr(bank.entries, field.name) for field in dataclasses.fields(bank.entries)]
    return sum(tensor.numel() * tensor.element_size() for tensor in [*tensors, index])


def main() -> int:
    """Measure every size and print the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 12, 14, 16, 18, 20], help="powers of two")
    parser.add_argument("--repeats", type=int, default=20, help="steps of each model")
    parser.add_argument("--json", action="store_true", help="print {bar: {value, bar, ok}}")
    options = parser.parse_args()
    facts = made_facts(2 ** max(options.sizes))
    tokenizer = Tokenizer.train([fact.text for fact in facts[:20_000]], vocab_size=4096)
    arrays = BankArrays.of(facts, tokenizer, ENTRY)
    measured = {power: measure(power, arrays, tokenizer, options.repeats) for power in options.sizes}
    bars = [bar for own in measured.values() for bar in own]
    first = {power: next(bar.value for bar in own if "first" in bar.name) for power, own in measured.items()}
    if 14 in first and 20 in first:
        bars.append(
            Bar("right entry first, lost from 2^14 to 2^20", 100 * (first[14] - first[20]), at_most=2, unit="points")
        )
    return report(bars)


if __name__ == "__main__":
    raise SystemExit(main())
