"""Where a training's facts come from, and what is refused before a folder is made."""

from types import SimpleNamespace
from typing import Any

import pytest

from lichen.config.errors import UsageError
from lichen.core.runs import Run
from lichen.dataset.bank import Bank, write_bank
from lichen.dataset.facts import made_fact
from lichen.trainer.memory import bank_hash, check_bank, keep_bank

FACTS = [made_fact(f"stone {n}", "bears", f"lichen {n}") for n in range(3)]
READING = {"num_hidden_layers": 2, "feed_forward_by_layer": {"1": {"kind": "knowledge"}}}


def recipe(tiny, given=None, model=READING):
    return tiny.recipe(model=model, knowledge={} if given is None else {"database_init_path": str(given)})


def data(knowledge=None) -> Any:
    return SimpleNamespace(knowledge=knowledge)


@pytest.fixture
def banks(tmp_path):
    return [write_bank(tmp_path / name, facts).folder for name, facts in (("one", FACTS), ("two", FACTS[1:]))]


def test_a_model_that_reads_needs_facts(tiny):
    with pytest.raises(UsageError, match="prepared without a bank"):
        check_bank(recipe(tiny), data())
    check_bank(tiny.recipe(), data())


def test_the_bank_given_must_be_the_one_the_data_is_linked_with(tiny, banks):
    check_bank(recipe(tiny, banks[0]), data(banks[0]))
    check_bank(recipe(tiny, banks[0]), data())
    with pytest.raises(UsageError, match="is not the bank the data is linked with"):
        check_bank(recipe(tiny, banks[1]), data(banks[0]))


def test_the_run_keeps_a_copy_that_later_changes_do_not_reach(tiny, banks, tmp_path):
    run = Run(tmp_path / "run")
    run.make_folders()
    keep_bank(recipe(tiny), data(banks[0]), run)
    kept = Bank.open(run.folder / "knowledge")
    assert kept.facts == FACTS
    assert bank_hash(recipe(tiny), run) == kept.hash
    keep_bank(recipe(tiny), data(banks[1]), run)  # an interrupted start has done it
    assert Bank.open(run.folder / "knowledge").facts == FACTS


def test_a_dense_training_keeps_none(tiny, banks, tmp_path):
    run = Run(tmp_path / "run")
    run.make_folders()
    keep_bank(tiny.recipe(), data(banks[0]), run)
    assert not (run.folder / "knowledge").exists()
    assert bank_hash(tiny.recipe(), run) is None
