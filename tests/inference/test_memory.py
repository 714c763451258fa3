"""A model is given the facts of its run, and only ever those that are asked for."""

import shutil

import pytest
import torch

from lichen.config.errors import LichenError
from lichen.config.model import ModelConfig
from lichen.core.batch import Batch
from lichen.dataset.bank import Bank, write_bank
from lichen.dataset.bank_edits import BankEditor
from lichen.dataset.facts import made_fact
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.loading import load
from lichen.inference.memory import facts_instead, find_bank, give_bank, give_facts, memory_of
from lichen.model.knowledge import Knowledge
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.weights import write_model

FACTS = [
    made_fact(name, "place of birth", town) for name, town in (("Ada", "London"), ("杜甫", "巩县"), ("Bo", "Rome"))
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([fact.text for fact in FACTS] * 4, vocab_size=345)


def model(tokenizer: Tokenizer, **section) -> LanguageModel:
    part = {"kind": "knowledge", "knowledge_dim": 8, "heads": 2, "top_k": 2, "router": "language-loss", **section}
    size = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    data = {"vocab_size": tokenizer.vocab_size, **size, "feed_forward_by_layer": {"1": part}}
    made = initialise(LanguageModel(ModelConfig.from_data(data)), seed=0).eval()
    layer = made.model.layers[1].mlp
    assert isinstance(layer, Knowledge)
    torch.nn.init.constant_(layer.reader.gate.values, 1.0)
    return made


def logits(made: LanguageModel, tokenizer: Tokenizer) -> torch.Tensor:
    with torch.no_grad():
        return made(Batch.of_tokens(torch.tensor([tokenizer.encode("Ada was born")])), want="logits").logits


@pytest.fixture
def run(tmp_path, tokenizer):
    """A run's folder with one checkpoint and a bank."""
    checkpoint = tmp_path / "run" / "checkpoints" / "lichen_step_0000001"
    checkpoint.mkdir(parents=True)
    write_model(model(tokenizer), checkpoint)
    tokenizer.save(checkpoint)
    write_bank(tmp_path / "run" / "knowledge", FACTS)
    return tmp_path / "run"


def test_loading_gives_the_facts_of_the_run(run, tokenizer):
    loaded, _ = load(run / "checkpoints" / "lichen_step_0000001", device="cpu")
    memory = memory_of(loaded)
    assert memory is not None and len(memory) == 3
    by_hand = model(tokenizer)
    give_facts(by_hand, FACTS, tokenizer)
    torch.testing.assert_close(logits(loaded, tokenizer), logits(by_hand, tokenizer))


def test_an_edited_bank_is_what_the_next_loading_reads(run, tokenizer):
    before, _ = load(run / "checkpoints" / "lichen_step_0000001", device="cpu")
    with BankEditor(run) as editor:
        editor.edit(FACTS[0].id, object="Rome")
    after, _ = load(run / "checkpoints" / "lichen_step_0000001", device="cpu")
    assert not torch.equal(logits(before, tokenizer), logits(after, tokenizer))


def test_a_model_without_its_facts_is_refused(run):
    shutil.rmtree(run / "knowledge")
    with pytest.raises(LichenError, match="reads facts and there is no bank"):
        load(run / "checkpoints" / "lichen_step_0000001", device="cpu")


def test_the_bank_in_a_checkpoint_goes_before_that_of_the_run(run):
    checkpoint = run / "checkpoints" / "lichen_step_0000001"
    assert find_bank(checkpoint) == run.absolute() / "knowledge"
    Bank.open(run / "knowledge").copy_to(checkpoint / "knowledge")
    assert find_bank(checkpoint) == checkpoint / "knowledge"


def test_more_facts_than_there_is_room_for_are_refused(run, tokenizer):
    with pytest.raises(LichenError, match="3 facts and the model room for 2"):
        give_bank(model(tokenizer, knowledge_num=2), run / "knowledge", tokenizer)


def test_other_facts_for_a_while(tokenizer):
    made = model(tokenizer)
    give_facts(made, FACTS, tokenizer)
    own = logits(made, tokenizer)
    with facts_instead(made, FACTS[1:], tokenizer):
        other = logits(made, tokenizer)
    assert not torch.equal(own, other)
    assert torch.equal(logits(made, tokenizer), own)


def test_a_dense_model_reads_nothing(tokenizer):
    size = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": tokenizer.vocab_size}
    dense = LanguageModel(ModelConfig.from_data(size))
    assert memory_of(dense) is None
    assert give_bank(dense, None, tokenizer) is None
    with pytest.raises(LichenError, match="no layer of kind knowledge"):
        give_facts(dense, FACTS, tokenizer)


def test_the_tokens_of_a_bank_are_kept_where_asked(run, tokenizer, tmp_path):
    made = model(tokenizer)
    give_bank(made, run / "knowledge", tokenizer, cache=tmp_path / "caches")
    [kept] = (tmp_path / "caches").glob("arrays-*.npz")
    before = kept.read_bytes()
    write_bank(tmp_path / "other", FACTS[:2])
    give_bank(made, tmp_path / "other", tokenizer, cache=tmp_path / "caches")
    assert kept.read_bytes() == before  # another bank's is not an earlier version of it
    assert len(list((tmp_path / "caches").iterdir())) == 2
