"""Rebinding: in every step text, targets and the bank's view tell one story, the same on every rank."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lichen.config.data import LinksConfig
from lichen.config.errors import LichenError
from lichen.core.batch import IGNORE_TARGET
from lichen.dataset.bank_arrays import BankArrays
from lichen.dataset.facts import made_fact
from lichen.dataset.linking import LINK, Linker
from lichen.dataset.loader import fill_rows
from lichen.dataset.plan import DocumentList, Plan
from lichen.dataset.rebinding import LinkArrays, Occurrences, Rebinder, View, occurrences
from lichen.dataset.tokenising import Encoder
from lichen.dataset.tokenizer import Tokenizer


class Made:
    """A step's rows before and after, with what was said about them."""

    def __init__(self, stories: ModuleType, step: int = 0, rows: int = 16, capacity: int = 64, **config: Any):
        source, binder = stories.plan(capacity), stories.rebinder(**config)
        self.arrays: BankArrays = stories.arrays()
        numbers = range(step * rows, (step + 1) * rows)
        self.before = fill_rows(source, numbers, 0)
        self.after = fill_rows(source, numbers, 0)
        self.found: Occurrences = occurrences(source, numbers)
        self.view: View = binder.view(step, self.found)
        self.links: LinkArrays = binder.label(self.view, self.found, self.after.tokens, self.after.targets, numbers)

    def object_of(self, entry: int) -> list[int]:
        """The tokens of an entry's object in this step."""
        start, stop = int(self.arrays.object_start[entry]), int(self.arrays.object_stop[entry])
        place = self.view.find(np.array([entry]))[0]
        tokens = self.arrays.entries[entry] if place < 0 else self.view.tokens[place]
        return tokens[start:stop].tolist()


@pytest.fixture(params=range(6))
def made(request: pytest.FixtureRequest, stories: ModuleType) -> Made:
    return Made(stories, request.param, rebind=0.6, remove=0.2, null_samples=8)


def test_every_linked_target_is_the_token_that_the_bank_tells_in_this_step(made: Made) -> None:
    place = 0
    assert len(made.links.positions) > 20
    for (row, column), entries, first in zip(made.links.positions, made.links.entries, made.links.first, strict=True):
        place = 0 if first else place + 1
        for entry in entries[entries >= 0].tolist():
            assert made.after.targets[row, column] == made.object_of(entry)[place]


def test_between_subject_and_object_the_subject_is_to_be_borne_in_mind(made: Made) -> None:
    found, told = made.found, 0
    assert (np.diff(made.links.carried[:, 0] * 64 + made.links.carried[:, 1]) > 0).all()
    for (row, column), entry in zip(made.links.carried.tolist(), made.links.carried_entries.tolist(), strict=True):
        about = (
            (found.rows == row)
            & (found.entries[:, 0] == entry)
            & (found.subjects <= column)
            & (column < found.starts - 1)
        )
        subject = int(found.subjects[about].max())
        spelt = made.arrays.keys[entry, : made.arrays.subject_lengths[entry]].tolist()
        heard = made.after.tokens[row, subject : column + 1].tolist()
        told += heard[: len(spelt)] == spelt
        assert len(heard) >= len(spelt) and entry not in made.view.removed
    assert told > 0.8 * len(made.links.carried) > 0


def test_targets_are_the_next_tokens_and_nothing_else_changed(made: Made) -> None:
    inside = made.after.targets != IGNORE_TARGET
    for row, lengths in enumerate(made.after.lengths):
        end = 0
        for length in lengths:
            start, end = end, end + length
            assert (made.after.targets[row, start : end - 1] == made.after.tokens[row, start + 1 : end]).all()
    changed = (made.before.targets != made.after.targets) & inside
    labelled = np.zeros_like(changed)
    for start, count, low, high, row in zip(*made.found[2:6], made.found.rows, strict=True):
        labelled[row, max(start - 1, low) : min(start + count - 1, high)] = True
    assert changed.any() and not (changed & ~labelled).any()
    assert (made.before.targets == IGNORE_TARGET).tolist() == (made.after.targets == IGNORE_TARGET).tolist()


def test_an_overridden_entry_has_an_object_of_its_relation_with_as_many_tokens_and_nothing_else_new(
    made: Made, stories: ModuleType
) -> None:
    facts, own, arrays = stories.all_facts(), stories.tokenizer(), stories.arrays()
    for entry, tokens in zip(made.view.overridden.tolist(), made.view.tokens, strict=True):
        fact, start, stop = facts[entry], int(arrays.object_start[entry]), int(arrays.object_stop[entry])
        other = own.decode(tokens[start:stop]).strip()
        same_place = [f.relation for f in facts if (f.subject, f.object) == (fact.subject, fact.object)]
        assert other != fact.object and other in {f.object for f in facts if f.relation in same_place}
        kept = np.delete(np.arange(arrays.length), np.arange(start, stop))
        assert (tokens[kept] == arrays.entries[entry][kept]).all() and tokens[stop - 1] > 0
    assert made.view.overridden.tolist() == sorted(set(made.view.overridden.tolist()))


def test_what_is_missing_is_missing_everywhere_and_nothing_is_to_be_read_there(made: Made, stories: ModuleType) -> None:
    removed = set(made.view.removed.tolist())
    assert removed and not removed & set(made.links.entries.flatten().tolist())
    assert not removed & set(made.view.overridden.tolist())
    nulls = set(map(tuple, made.links.nulls.tolist()))
    assert not nulls & set(map(tuple, made.links.positions.tolist()))
    expected = 0
    for k in np.flatnonzero(made.found.told):
        if made.found.entries[k, 0] in removed:
            row, start, low, high = (
                int(part[k]) for part in (made.found.rows, made.found.starts, made.found.lows, made.found.highs)
            )
            subject_is_there = (made.before.tokens == made.after.tokens)[row, made.found.subjects[k]]
            places = {
                (row, column)
                for column in range(start - 1, start - 1 + int(made.found.counts[k]))
                if low <= column < high
            }
            assert not subject_is_there or places <= nulls
            expected += 1
    assert expected
    pairs = stories.arrays().pair_ids
    assert {entry for entry in range(len(pairs)) if pairs[entry] in pairs[sorted(removed)]} == removed


def test_nulls_are_sampled_from_what_nothing_answers(made: Made) -> None:
    nulls = made.links.nulls
    assert (made.after.targets[tuple(nulls.T)] != IGNORE_TARGET).all()
    counts = np.bincount(nulls[:, 0], minlength=16)
    assert (counts >= 8).all() and (counts == 8).any() and counts.sum() < 16 * 8 + 120
    assert nulls.tolist() == sorted(nulls.tolist()) and made.links.positions.tolist() == sorted(
        made.links.positions.tolist()
    )


def test_shares_are_as_configured(stories: ModuleType) -> None:
    def counted(**config: Any) -> tuple[float, float]:
        made = [Made(stories, step, **config) for step in range(30)]
        linked = sum(len(np.unique(one.found.entries[one.found.told])) - 1 for one in made)
        return sum(len(one.view.overridden) for one in made) / linked, sum(
            len(one.view.removed) for one in made
        ) / linked

    rebound, removed = counted(rebind=0.5, remove=0.1)
    assert 0.38 < rebound < 0.55 and 0.07 < removed < 0.16
    assert counted(rebind=0, remove=0) == (0, 0)
    assert counted(rebind=0, remove=1)[1] >= 1


def test_what_one_place_tells_together_shares_its_fate(stories: ModuleType) -> None:
    born, died, apart = 0, 1, 0
    for step in range(60):
        made = Made(stories, step, rebind=0.8, remove=0.1)
        there = {born, died} & set(made.found.entries[made.found.told].flatten().tolist())
        if there:
            assert there == {born, died}
            assert made.object_of(born) == made.object_of(died)
            assert (born in made.view.removed) == (died in made.view.removed)
            apart += born in made.view.overridden
    assert apart > 3


def test_a_link_whose_subject_is_a_replaced_object_teaches_nothing() -> None:
    facts = [made_fact("Ada", "born in", "Rome"), made_fact("Rome", "in", "Italy"), made_fact("Bob", "born in", "Oslo")]
    facts += [made_fact("Oslo", "in", "Norway")]
    own = Tokenizer.train([fact.text for fact in facts] * 9, vocab_size=420)
    encoded = next(Encoder(own, workers=1, linker=Linker(facts)).encode(["Ada was in Rome, which is in Italy."]))
    source = Plan(DocumentList("one", [encoded.ids.tolist()], links=[encoded.links]), 64, seed=0)
    binder = Rebinder(BankArrays.of(facts, own), LinksConfig(rebind=1.0, remove=0.0), 0)
    filled, found = fill_rows(source, [0], 0), occurrences(source, [0])
    assert found.entries[:, 0].tolist() == [0, 1]
    links = binder.label(binder.view(0, found), found, filled.tokens, filled.targets, [0])
    assert own.decode(filled.tokens[0, : len(encoded.ids) - 1]) == "Ada was in Oslo, which is in Norway."
    assert links.overridden.tolist() == [0, 1] and set(links.entries[:, 0].tolist()) == {0}


def test_a_link_whose_subject_lies_in_another_piece_teaches_nothing_and_is_left_alone(stories: ModuleType) -> None:
    source = stories.plan(capacity=12)
    numbers = range(stories.plan(12).rows_in_epoch(0))
    found = occurrences(source, numbers)
    torn = ~found.told
    assert torn.any() and found.told.any()
    made = Made(stories, 0, rows=len(numbers), capacity=12, rebind=0.5)
    labelled = {tuple(place) for place in (*made.links.positions.tolist(), *made.links.nulls.tolist())}
    for k in np.flatnonzero(torn):
        row, start, low, high = (int(part[k]) for part in (found.rows, found.starts, found.lows, found.highs))
        places = [(row, c) for c in range(start - 1, start - 1 + int(found.counts[k])) if low <= c < high]
        assert places and not labelled & set(places)
        assert all(made.before.targets[place] == made.after.targets[place] for place in places)
    torn_entries = set(found.entries[torn, 0].tolist()) - set(found.entries[found.told].flatten().tolist())
    assert not torn_entries & set(made.view.overridden.tolist())


def test_an_object_over_the_end_of_a_row_is_replaced_as_far_as_it_goes() -> None:
    facts = [made_fact("Ada", "in", "San Marino"), made_fact("Bob", "in", "New Delhi")]
    own = Tokenizer.train([fact.text for fact in facts] * 9, vocab_size=420)
    encoded = next(Encoder(own, workers=1, linker=Linker(facts)).encode(["Ada: San Marino"]))
    start, count = int(encoded.links["start"][0]), int(encoded.links["count"][0])
    assert count == 2
    source = Plan(DocumentList("one", [encoded.ids.tolist()], links=[encoded.links]), start, seed=0)
    binder = Rebinder(BankArrays.of(facts, own), LinksConfig(rebind=1.0, remove=0.0), 0)
    numbers = range(source.rows_in_epoch(0))
    filled, found = fill_rows(source, numbers, 0), occurrences(source, numbers)
    links = binder.label(binder.view(0, found), found, filled.tokens, filled.targets, numbers)
    assert links.positions.tolist() == [[found.rows[found.told][0], start - 1]] and links.first.tolist() == [True]
    assert own.decode(filled.targets[links.positions[0, 0], start - 1 : start]) == " New"


def test_an_entry_is_kept_where_the_text_spells_its_object_otherwise() -> None:
    facts = [made_fact("Ada", "in", "Rome"), made_fact("Bob", "in", "Oslo")]
    own = Tokenizer.train([fact.text for fact in facts] * 9, vocab_size=420)
    for text, rebound in (("Ada: Rome", [0]), ("Ada:Rome", []), ("Ada: Rome, Ada (Rome)", [])):
        encoded = next(Encoder(own, workers=1, linker=Linker(facts)).encode([text]))
        source = Plan(DocumentList("one", [encoded.ids.tolist()], links=[encoded.links]), 64, seed=0)
        found = occurrences(source, [0])
        view = Rebinder(BankArrays.of(facts, own), LinksConfig(rebind=1.0, remove=0.0), 0).view(0, found)
        assert view.overridden.tolist() == rebound, text


def test_an_object_without_an_equal_of_its_relation_is_kept() -> None:
    facts = [made_fact("Ada", "in", "Rome"), made_fact("Bob", "from", "Oslo"), made_fact("Cy", "in", "San Marino")]
    facts.append(made_fact("Dee", "in", "Rome"))
    own = Tokenizer.train([fact.text for fact in facts] * 9, vocab_size=420)
    encoded = next(Encoder(own, workers=1, linker=Linker(facts)).encode(["Ada: Rome. Bob: Oslo. Cy: San Marino."]))
    source = Plan(DocumentList("one", [encoded.ids.tolist()], links=[encoded.links]), 64, seed=0)
    found = occurrences(source, [0])
    assert len(found.rows) == 3
    view = Rebinder(BankArrays.of(facts, own), LinksConfig(rebind=1.0, remove=0.0), 0).view(0, found)
    assert view.overridden.tolist() == []


def test_donors_are_drawn_from_all_entries_with_another_object() -> None:
    facts = [made_fact("Ada", "in", "Rome")] + [made_fact(f"n {n}", "in", "Oslo") for n in range(3)]
    facts += [made_fact("m", "in", "Rome"), made_fact("k", "in", "Lima")]
    own = Tokenizer.train([fact.text for fact in facts] * 9, vocab_size=420)
    encoded = next(Encoder(own, workers=1, linker=Linker(facts)).encode(["Ada: Rome"]))
    source = Plan(DocumentList("one", [encoded.ids.tolist()], links=[encoded.links]), 64, seed=0)
    binder = Rebinder(BankArrays.of(facts, own), LinksConfig(rebind=1.0, remove=0.0), 0)
    found = occurrences(source, [0])
    drawn = [own.decode(binder.view(step, found).objects[0]).strip() for step in range(400)]
    assert set(drawn) == {"Oslo", "Lima"} and 0.68 < drawn.count("Oslo") / 400 < 0.82


def test_a_view_is_a_function_of_seed_step_and_links(stories: ModuleType) -> None:
    found = occurrences(stories.plan(), range(16))
    first, again = stories.rebinder().view(3, found), stories.rebinder().view(3, found)
    for one, other in zip(vars(first).values(), vars(again).values(), strict=True):
        assert one.tolist() == other.tolist()
    assert stories.rebinder().view(4, found).overridden.tolist() != first.overridden.tolist()
    assert stories.rebinder(seed=1).view(3, found).overridden.tolist() != first.overridden.tolist()


def test_rows_without_links_have_nulls_only(stories: ModuleType) -> None:
    source = Plan(DocumentList("plain", [[5, 6, 7, 0]], links=[np.zeros(0, LINK)]), 8, seed=0)
    filled, found = fill_rows(source, [0, None], 0), occurrences(source, [0, None])
    view = stories.rebinder().view(0, found)
    links = stories.rebinder().label(view, found, filled.tokens, filled.targets, [0, None])
    assert len(links.positions) == len(links.overridden) == len(links.removed) == 0
    assert links.entries.shape == (0, 4) and links.tokens.shape == (0, stories.arrays().length)
    assert links.nulls.tolist() == [[0, 0], [0, 1], [0, 2]]


def test_a_link_beyond_the_bank_is_said(stories: ModuleType) -> None:
    links = np.zeros(1, LINK)
    links["start"], links["count"], links["entries"] = 2, 1, [10_000, -1, -1, -1]
    source = Plan(DocumentList("odd", [[5, 6, 7, 0]], links=[links]), 8, seed=0)
    with pytest.raises(LichenError, match=r"entry 10000 of .* another bank"):
        stories.rebinder().view(0, occurrences(source, [0]))
