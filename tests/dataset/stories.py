"""Made texts that tell facts, linked with a bank of them: small enough for tests, with every case that matters."""

from functools import cache
from typing import Any

from lichen.config.data import LinksConfig
from lichen.core.streams import Stream
from lichen.dataset.bank_arrays import BankArrays
from lichen.dataset.facts import Fact, made_fact
from lichen.dataset.linking import Linker
from lichen.dataset.plan import DocumentList, Plan
from lichen.dataset.rebinding import Rebinder
from lichen.dataset.tokenising import Encoder
from lichen.dataset.tokenizer import Tokenizer

PEOPLE = [
    f"{first} {last}" for first in ("Ada", "Bob", "Cy", "Dee", "Eve", "Fay") for last in ("Moss", "Stone", "Rain")
]
CITIES = ("London", "Paris", "Rome", "Oslo", "Kyiv", "Lima", "San Marino", "New Delhi")
JOBS = ("poet", "actor", "judge", "baker")


@cache
def all_facts() -> list[Fact]:
    """Who was born and died where, and what they were; some in one place, one with two trades."""
    draw = Stream(0, "facts").numpy()
    triples = [("Gus Fern", "born in", "Rome"), ("Gus Fern", "died in", "Rome"), ("Gus Fern", "job", "poet")]
    triples += [
        ("Gus Fern", "job", "baker"),
        ("London", "in", "England"),
        ("Rome", "in", "Italy"),
        ("Oslo", "in", "Norway"),
    ]
    for person in PEOPLE:
        triples += [(person, relation, str(draw.choice(CITIES))) for relation in ("born in", "died in")]
        triples.append((person, "job", str(draw.choice(JOBS))))
    return [made_fact(*triple, id=str(number)) for number, triple in enumerate(triples)]


def sentence(fact: Fact) -> str:
    return (
        f"{fact.subject} was {fact.relation} {fact.object}."
        if fact.relation != "job"
        else f"{fact.subject} is a {fact.object}."
    )


@cache
def texts() -> list[str]:
    """Eighty texts of some facts each, in any order."""
    draw = Stream(1, "texts").numpy()
    facts = all_facts()
    chosen = [draw.choice(len(facts), size=int(draw.integers(1, 6)), replace=False) for _ in range(80)]
    return [
        " ".join(["They say:", *(sentence(facts[number]) for number in numbers), "That is all."]) for numbers in chosen
    ]


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.train([*texts(), *(fact.text for fact in all_facts())], vocab_size=700)


@cache
def arrays() -> BankArrays:
    return BankArrays.of(all_facts(), tokenizer())


@cache
def documents(linked: bool = True) -> DocumentList:
    encoded = list(Encoder(tokenizer(), workers=1, linker=Linker(all_facts())).encode(texts()))
    return DocumentList(
        "tales", [d.ids.tolist() for d in encoded], links=[d.links for d in encoded] if linked else None
    )


def plan(capacity: int = 64) -> Plan:
    return Plan(documents(), capacity, seed=0, window=30)


def rebinder(seed: int = 0, **config: Any) -> Rebinder:
    return Rebinder(arrays(), LinksConfig.from_data(config), seed)
