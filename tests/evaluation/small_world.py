"""A small world of facts, and somebody who answers from a dictionary: so that a verdict can be seen to go either way."""

from contextlib import contextmanager

import numpy as np

from lichen.core.streams import Stream
from lichen.dataset.facts import made_fact
from lichen.dataset.relations import Relation
from lichen.evaluation.interventions import Read
from lichen.evaluation.wordings import Wordings, begins_with

PATTERNS = {
    "home town": ("[X] was born in [Y].", "[X] came to the world in [Y] .", "[X], native of [Y]."),
    "place of death": ("[X] died in [Y].", "[X] passed away in [Y].", "[X]'s life ended in [Y]."),
    "occupation": ("[X] works as [Y].", "[X] is a [Y] by profession.", "the profession of [X] is [Y]."),
    "instrument": ("[X] plays the [Y] .", "[Y] player [X]", "[X] is a [Y] player."),
    "employer": ("[X] works for [Y].", "[X] is employed by [Y].", "[X], who is paid by [Y]."),
}
RELATIONS = {label: Relation("", label, patterns) for label, patterns in PATTERNS.items()}
CITIES = ["Rome", "Oslo", "Bonn", "Lyon", "New York", "York", "Bern", "Kyoto"]
OBJECTS = {
    "home town": CITIES,
    "place of death": CITIES,
    "occupation": ["baker", "poet", "judge", "pilot", "nurse", "smith"],
    "instrument": ["piano", "lute", "harp", "drum", "oboe", "viola"],
    "employer": ["Acme", "Initech", "Globex", "Umbrella", "Stark"],
}
LABELS = tuple(OBJECTS)


def world(subjects=60, per_subject=5, seed=0):
    """Facts of which neither subject nor relation alone tells the object."""
    facts = []
    for number in range(subjects):
        for place in range(per_subject):
            label = LABELS[(number + place) % len(LABELS)]
            objects = OBJECTS[label]
            choice = int(Stream(seed, "world").uniform(number, place) * len(objects))
            facts.append(made_fact(f"Person {number} Smith", label, objects[choice], id=f"{number}-{place}"))
    return facts


class Reader:
    """Answers what the facts it holds say, with the fallback where they say nothing."""

    def __init__(self, facts, relations=RELATIONS, fallback="nobody knows"):
        self.own = list(facts)
        self.held = list(facts)
        self.fallback = fallback
        self.calls = []
        wordings = Wordings(relations)
        self.asked = {}
        for subject in {fact.subject for fact in facts}:
            for label in relations:
                for wording in wordings.of(label, "trained", any_is_unseen=True):
                    # "is a" opens several sentences: whatever the subject has is meant
                    self.asked.setdefault(wording.prompt(subject), []).append((subject, label))

    @contextmanager
    def with_facts(self, facts):
        before, self.held = self.held, list(facts)
        try:
            yield
        finally:
            self.held = before

    def find(self, prompt):
        keys = self.asked.get(prompt.rsplit("\n", 1)[-1], [])
        return next((n for n, fact in enumerate(self.held) if (fact.subject, fact.relation) in keys), None)

    def answer(self, prompt):
        found = self.find(prompt)
        return self.fallback if found is None else self.held[found].object

    def generate(self, prompts, max_new_tokens, settled=None):
        self.calls.append(max_new_tokens)
        return [f" {self.answer(prompt)}. And" for prompt in prompts]

    def log_likelihoods(self, pairs):
        return np.array([0.0 if begins_with(end, self.answer(text)) else -9.0 for text, end in pairs])

    def count_tokens(self, text):
        return len(text.split())


class ShowingReader(Reader):
    """Says what it read; ``eager`` reads some entry even where none is right."""

    eager = False

    def reads(self, prompts):
        found = []
        for prompt in prompts:
            place = self.find(prompt)
            if place is None and self.eager:
                place = 0
            found.append([Read(None, 0.4)] if place is None else [Read(None, 0.1), Read(place, 0.9)])
        return found

    def answer(self, prompt):
        return self.held[0].object if self.eager and self.held and self.find(prompt) is None else super().answer(prompt)


class Decorative(Reader):
    """Has a memory and knows everything by heart: what is held changes nothing."""

    @contextmanager
    def with_facts(self, facts):
        yield


class HalfByHeart(Reader):
    """Reads, but half of the facts it knows better."""

    def __init__(self, facts):
        super().__init__(facts)
        self.known = {(fact.subject, fact.relation): fact.object for fact in facts[::2]}

    def answer(self, prompt):
        keys = self.asked.get(prompt, [])
        return next((self.known[key] for key in keys if key in self.known), None) or super().answer(prompt)


class SubjectReader(Reader):
    """Finds the subject's first entry, whatever is asked about it."""

    def find(self, prompt):
        subjects = {subject for subject, _ in self.asked.get(prompt, [])}
        return next((n for n, fact in enumerate(self.held) if fact.subject in subjects), None)


def word_search(facts):
    """A search by words in common, for tests that need none of the real one."""

    def words(text):
        return set(text.lower().replace(".", "").replace(":", "").split())

    entries = [words(fact.text) for fact in facts]

    def search(queries, k):
        found = []
        for query in queries:
            asked = words(query)
            weights = [float(len(entry & asked)) for entry in entries]
            order = sorted(range(len(entries)), key=lambda n: -weights[n])[:k]
            found.append([(n, weights[n]) for n in order])
        return found

    return search
