import math
from collections import Counter
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from lichen.config.errors import LichenError, UsageError
from lichen.core.batch import Batch
from lichen.dataset.loader import Loader, ValidationBatches
from lichen.dataset.mixture import Mixture
from lichen.dataset.plan import DocumentList, Plan, steps_per_epoch
from lichen.dataset.shards import Documents, write_shard


def made(count=60, longest=40, seed=0, name="made"):
    """Documents whose tokens say where they come from: document * 1000 + place."""
    lengths = np.random.default_rng(seed).integers(0, longest, count)
    return DocumentList(name, [[i * 1000 + place for place in range(n)] for i, n in enumerate(lengths)])


def plan(**options):
    return Plan(made(**options), 16, seed=0, window=25)


def equal(a: Batch, b: Batch) -> bool:
    names = ("tokens", "targets", "positions", "segments")
    same = all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)
    return same and a.lengths == b.lengths and a.row_numbers == b.row_numbers


def joined(parts: list[Batch]) -> Batch:
    names = ("tokens", "targets", "positions", "segments")
    tensors: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    lengths = sum((part.lengths for part in parts), ())
    return Batch(**tensors, lengths=lengths, row_numbers=sum((part.row_numbers for part in parts), ()))


def test_what_a_batch_says_about_its_rows():
    batch = Loader(plan(), 8, pad_id=7).batch(1)
    assert batch.row_numbers == tuple(range(8, 16))
    for row, lengths in enumerate(batch.lengths):
        end = 0
        for segment, length in enumerate(lengths):
            places = slice(end, end + length)
            tokens = batch.tokens[row, places]
            assert (batch.segments[row, places] == segment).all()
            assert batch.positions[row, places].tolist() == list(range(length))
            assert (batch.targets[row, places] == tokens + 1).all()  # the same document's next token
            end += length
        assert (batch.tokens[row, end:] == 7).all() and (batch.targets[row, end:] == -100).all()
        assert (batch.segments[row, end:] == -1).all() and (batch.positions[row, end:] == 0).all()
    assert batch.num_targets == batch.num_tokens == sum(map(sum, batch.lengths))


def test_an_epoch_of_batches_holds_every_target_once():
    documents = made()
    loader = Loader(Plan(documents, 16, seed=0, window=25), 1, pad_id=0)
    seen = Counter(
        target
        for step in range(steps_per_epoch(loader.source, 1))
        for target in loader.batch(step).targets.flatten().tolist()
        if target != -100
    )
    assert seen == {i * 1000 + place: 1 for i, n in enumerate(documents.lengths.tolist()) for place in range(1, n)}


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_world_size_sees_the_same_global_batches(world_size, accumulation):
    whole = Loader(plan(), 8, pad_id=0)
    ranks = [
        Loader(plan(), 8, pad_id=0, rank=rank, world_size=world_size, accumulation=accumulation)
        for rank in range(world_size)
    ]
    for step in (0, 3, 50):
        micro = [part for loader in ranks for part in loader.batch(step).split(accumulation)]
        assert equal(joined(micro), whole.batch(step))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_number_of_workers_does_not_matter(workers):
    plans = [plan(), plan(seed=1, name="other")]
    mixture = Mixture(plans, [0.7, 0.3], seed=0)
    alone = list(Loader(mixture, 4, pad_id=0, rank=1, world_size=2).batches(5, 25))
    helped = list(Loader(mixture, 4, pad_id=0, rank=1, world_size=2, workers=workers).batches(5, 25))
    assert len(alone) == len(helped) == 20
    assert all(equal(a, b) for a, b in zip(alone, helped, strict=True))


def test_memory_mapped_shards_give_the_same_batches_with_and_without_workers(tmp_path):
    whole = made()
    ids = [whole.tokens(i).astype(np.uint16) for i in range(len(whole))]
    for shard, part in enumerate((slice(0, 25), slice(25, None))):
        write_shard(tmp_path, shard, ids[part], [len(document) for document in ids[part]], np.dtype("<u2"))
    documents: Any = Documents("made", 1.0, [tmp_path / "shard_00000", tmp_path / "shard_00001"], np.dtype("<u2"))
    expected = list(Loader(plan(), 4, pad_id=0).batches(0, 10))
    for workers in (0, 2):
        loader = Loader(Plan(documents, 16, seed=0, window=25), 4, pad_id=0, workers=workers)
        for batch, other in zip(loader.batches(0, 10), expected, strict=True):
            assert (batch.targets == torch.where(other.targets < 0, -100, other.targets % 65536)).all()


def test_batches_start_anywhere_and_go_on_through_epochs():
    loader = Loader(plan(), 4, pad_id=0)
    batches = loader.batches(start_step=1000)
    assert equal(next(batches), loader.batch(1000)) and equal(next(batches), loader.batch(1001))


@pytest.mark.parametrize(("world_size", "accumulation", "near"), [(4, 1, 8), (1, 3, 9), (2, 4, 8)])
def test_rows_that_cannot_be_shared_out_are_refused(world_size, accumulation, near):
    with pytest.raises(UsageError, match=rf"10 rows .* such as {near}$"):
        Loader(plan(), 10, pad_id=0, world_size=world_size, accumulation=accumulation)


def test_a_failure_inside_a_worker_names_worker_and_step():
    class Broken(DocumentList):
        def tokens(self, i, start=0, stop=None):
            raise RuntimeError("disk on fire")

    loader = Loader(Plan(Broken("broken", [[1, 2, 3]]), 8, seed=0), 1, pad_id=0, workers=2)
    with pytest.raises(LichenError, match=r"worker 0 of 2 .* step 9: RuntimeError: disk on fire"):
        next(loader.batches(9))


def test_a_bad_shard_is_named_as_it_is_without_workers():
    class Damaged(DocumentList):
        def tokens(self, i, start=0, stop=None):
            raise LichenError("shard_00003.tokens.bin: damaged")

    loader = Loader(Plan(Damaged("damaged", [[1, 2, 3]]), 8, seed=0), 1, pad_id=0, workers=1)
    with pytest.raises(LichenError, match=r"^shard_00003\.tokens\.bin: damaged$"):
        next(loader.batches(0))


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("batch_rows", [4, 12])
def test_validation_reads_every_target_and_byte_once_over_all_ranks(world_size, batch_rows):
    documents = made()
    ranks = [
        ValidationBatches(Plan(documents, 16, 0), batch_rows, 7, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    taken = [list(validation) for validation in ranks]
    assert len({len(batches) for batches in taken}) == 1 and len(taken[0]) == len(ranks[0])
    shapes = {tuple(item.batch.tokens.shape) for batches in taken for item in batches}
    assert shapes == {(batch_rows // world_size, 16)}
    targets = Counter(t for batches in taken for item in batches for t in item.batch.targets.flatten().tolist())
    del targets[-100]
    assert targets == {i * 1000 + place: 1 for i, n in enumerate(documents.lengths.tolist()) for place in range(1, n)}
    total = sum(item.bytes for batches in taken for item in batches)
    assert total == documents.bytes.sum() == ranks[0].bytes


def test_validation_is_limited_and_the_same_on_every_visit():
    validation = ValidationBatches(plan(), 4, 7, max_batches=3)
    first, second = list(validation), list(validation)
    assert len(first) == len(validation) == 3
    assert all(equal(a.batch, b.batch) and a.bytes == b.bytes for a, b in zip(first, second, strict=True))
    assert validation.bytes == sum(item.bytes for item in first) < made().bytes.sum()


def test_bits_per_byte_of_a_limited_validation_estimate_those_of_the_whole():
    """A model that spends the same on every token has the same bits per byte on any part whose documents are alike."""
    documents = made(count=400)
    documents.bytes = 5 * np.maximum(documents.lengths.astype(np.int64) - 1, 0)
    source = Plan(documents, 16, seed=0)
    for limit in (1, 5, None):
        items = list(ValidationBatches(source, 4, 7, max_batches=limit))
        nll = sum(2.0 * item.batch.num_targets for item in items)
        bits_per_byte = nll / (math.log(2) * sum(item.bytes for item in items))
        assert bits_per_byte == pytest.approx(2.0 / 5 / math.log(2))


def test_validation_rows_that_cannot_be_shared_out_are_refused():
    with pytest.raises(UsageError, match="multiple of 4"):
        ValidationBatches(plan(), 6, 7, world_size=4)


# --- Links ---


def linked_loader(stories: ModuleType, **options: Any) -> Loader:
    """Batches of made texts that tell facts, with their bank."""
    return Loader(stories.plan(), 8, pad_id=0, rebinder=stories.rebinder(rebind=0.6, remove=0.2), **options)


def links_of(batch: Batch) -> dict[str, Any]:
    assert batch.links is not None
    return {name: tensor.tolist() for name, tensor in vars(batch.links).items()}


def joined_links(parts: list[Batch]) -> dict[str, Any]:
    """The links of micro-batches as those of one batch, once it is sure that all have the same view of the bank."""
    whole = links_of(parts[0])
    for name in ("overridden", "tokens", "removed"):
        assert all(links_of(part)[name] == whole[name] for part in parts)
    for name in ("positions", "nulls", "carried"):
        whole[name] = [
            [row + number * part.rows, column]
            for number, part in enumerate(parts)
            for row, column in links_of(part)[name]
        ]
    for name in ("entries", "first", "carried_entries"):
        whole[name] = [value for part in parts for value in links_of(part)[name]]
    return whole


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_world_size_sees_the_same_facts_changed(world_size, accumulation, stories):
    whole = linked_loader(stories)
    ranks = [
        linked_loader(stories, rank=r, world_size=world_size, accumulation=accumulation) for r in range(world_size)
    ]
    for step in (0, 1, 2, 30):
        micro = [part for loader in ranks for part in loader.batch(step).split(accumulation)]
        expected = whole.batch(step)
        assert equal(joined(micro), expected)
        assert joined_links(micro) == links_of(expected)
        assert links_of(expected)["overridden"] and links_of(expected)["positions"] and links_of(expected)["nulls"]


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_build_the_same_links(workers, stories):
    alone = list(linked_loader(stories, rank=1, world_size=2).batches(3, 9))
    helped = list(linked_loader(stories, rank=1, world_size=2, workers=workers).batches(3, 9))
    assert [links_of(batch) for batch in alone] == [links_of(batch) for batch in helped]
    assert all(equal(a, b) for a, b in zip(alone, helped, strict=True))


def test_a_mixture_has_the_links_of_its_sources(stories):
    other = DocumentList("plain", [[5, 6, 7, 0]] * 50)
    mixture = Mixture([Plan(other, 64, 0), stories.plan()], [0.5, 0.5], seed=0)
    rebinder = stories.rebinder(rebind=0.5)
    links = links_of(Loader(mixture, 16, pad_id=0, rebinder=rebinder).batch(0))
    assert {row for row, _ in links["positions"]} == {n for n in range(16) if mixture.source(n)[0] == 1}
    assert {row for row, _ in links["nulls"]} == set(range(16))


def test_without_a_bank_or_one_who_reads_it_the_text_is_as_it_is(stories):
    plain = Loader(stories.plan(), 8, pad_id=0).batch(0)
    assert plain.links is None
    unlinked = Plan(stories.documents(linked=False), 64, seed=0, window=30)
    untouched = Loader(unlinked, 8, pad_id=0, rebinder=stories.rebinder(rebind=1.0, remove=0.0)).batch(0)
    assert untouched.links is None and equal(untouched, plain)


def test_validation_has_links_and_changes_nothing(stories):
    source, rebinder = stories.plan(), stories.rebinder(rebind=0.6, remove=0.2)
    plain = list(ValidationBatches(source, 4, 7))
    linked = list(ValidationBatches(source, 4, 7, rebinder=rebinder))
    again = list(ValidationBatches(source, 4, 7, rebinder=rebinder))
    assert sum(len(links_of(item.batch)["positions"]) for item in linked) > 100
    for a, b, c in zip(plain, linked, again, strict=True):
        links = links_of(b.batch)
        assert a.batch.links is None and equal(a.batch, b.batch) and links == links_of(c.batch)
        assert links["overridden"] == links["removed"] == links["tokens"] == []
        assert {len(row) for row in links["entries"]} <= {4}
