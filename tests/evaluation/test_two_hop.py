"""Two hops: what the model wrote is what it is asked about next, and every examinee is asked alike."""

import json

import numpy as np
import pytest

from lichen.config.evaluation import KnowledgeEvaluation
from lichen.config.model import ModelConfig
from lichen.dataset.bank_graph import TwoHop, two_hop_questions
from lichen.dataset.facts import made_fact
from lichen.dataset.relations import Relation
from lichen.dataset.tokenizer import Tokenizer
from lichen.evaluation import two_hop
from lichen.evaluation.continuation import ModelContinuations
from lichen.evaluation.fact_groups import Group
from lichen.evaluation.model_memory import ModelMemory
from lichen.evaluation.prompting import Prompted
from lichen.evaluation.two_hop import HopMaker, run_two_hops, said
from lichen.evaluation.yardsticks import yardsticks
from lichen.inference.memory import give_facts
from lichen.model.language_model import LanguageModel, initialise

PATTERNS = {
    "home town": ("[X] was born in [Y].", "[X], native of [Y]"),
    "country": ("[X] lies in [Y] .", "[X] is a town in [Y]."),
}
RELATIONS = {label: Relation("", label, patterns) for label, patterns in PATTERNS.items()}
CITIES = {
    "Rome": "Italy",
    "Oslo": "Norway",
    "Bonn": "Germany",
    "Lyon": "France",
    "St. Gallen": "Switzerland",
    "York": "England",
}
PEOPLE = [made_fact(f"Person {n} Smith", "home town", list(CITIES)[n % 6], id=f"p{n}") for n in range(30)]
TOWNS = [made_fact(city, "country", country, id=city) for city, country in CITIES.items()]
BANK = (*PEOPLE, *TOWNS)
ADDED = Group("added", tuple(PEOPLE[20:]), BANK)
SETTINGS = KnowledgeEvaluation(two_hop_questions=20)


@pytest.fixture
def reader(small):
    class LastSentence(small.Reader):
        """Reads, and sees the last sentence only."""

        def __init__(self, wrong=()):
            super().__init__(BANK, RELATIONS)
            self.wrong, self.prompts = set(wrong), []

        def find(self, prompt):
            return super().find(prompt.rsplit(". ", 1)[-1])

        def answer(self, prompt):
            if any(prompt == f"{name} was born in" for name in self.wrong):
                return "Rome"
            return "Switzerland" if prompt.endswith("St. Gallen lies in") else super().answer(prompt)

        def generate(self, prompts, max_new_tokens, settled=None):
            self.prompts += prompts
            return super().generate(prompts, max_new_tokens, settled)

    return LastSentence


def run(model, group=ADDED, settings=SETTINGS, memory=True, **more):
    return run_two_hops(model, model if memory else None, group, RELATIONS, settings, **more)


def test_whoever_reads_both_facts_gets_there(reader):
    found = run(reader())
    chain = found.chains["model"]
    assert found.paths == found.n == 10 and chain.bridge.value == chain.end.value == chain.oracle_end.value == 1
    assert chain.end_chosen.value == 1 and chain.end.n == 10
    assert {first for first, _ in found.facts} == {fact.id for fact in ADDED.facts}


def test_the_second_sentence_is_about_what_was_written_and_plain_text(reader):
    model = reader(wrong=["Person 21 Smith"])
    run(model)
    asked = set(model.prompts)
    assert "Person 21 Smith was born in" in asked and "Person 21 Smith was born in Rome. Rome lies in" in asked
    assert "Person 21 Smith was born in Lyon. Lyon lies in" in asked  # the oracle's
    assert "Person 22 Smith was born in St. Gallen. St. Gallen lies in" in asked


def test_a_wrong_bridge_leads_to_a_wrong_end_and_the_oracle_shows_it(reader):
    wrong = [fact.subject for fact in ADDED.facts if fact.object != "Rome"][:6]
    chain = run(reader(wrong=wrong)).chains["model"]
    assert chain.bridge.value == chain.end.value == pytest.approx(0.4)
    assert (chain.end_after_right_bridge.n, chain.end_after_right_bridge.value, chain.oracle_end.value) == (4, 1, 1)


def test_who_writes_nothing_is_wrong_and_not_asked_on(reader):
    class Mute(reader):
        def generate(self, prompts, max_new_tokens, settled=None):
            self.prompts += prompts
            return [""] * len(prompts)

    model = Mute()
    chain = run(model).chains["model"]
    assert chain.bridge.value == chain.end.value == chain.end_chosen.value == 0
    assert not [prompt for prompt in model.prompts if ". " in prompt and "in in" in prompt]
    assert chain.end_after_right_bridge.n == 0 and chain.oracle_end_chosen.value == 1


def test_yardsticks_take_the_same_two_steps(reader):
    found = run(reader(), yardsticks=yardsticks(BANK, 0))
    assert list(found.chains) == ["model", "tf-idf + copy", "majority", "subject only"]
    assert all(chain.end.n == found.n for chain in found.chains.values())
    assert found.chains["subject only"].end.value == 1  # each has one fact here
    most = found.chains["majority"]
    assert most.bridge.value < 0.5 and most.end.value < 0.5 and most.oracle_end.value < 0.5


def test_all_that_is_right_counts_where_a_hop_is_ambiguous():
    more = (*BANK, made_fact("Person 0 Smith", "home town", "Oslo", id="again"))
    question = TwoHop(PEOPLE[0], TOWNS[0], "Italy", ("Italy", "France", "Germany", "England"))
    [hop], _ = HopMaker(RELATIONS, more, SETTINGS).choose([question], 5)
    assert hop.bridges == ("Rome", "Oslo") and hop.ends == ("Italy", "Norway")
    assert hop.bridge_question().is_answered_by([" Oslo."])
    end = hop.end_question("Oslo", TOWNS[1], alone=False)
    assert end.is_answered_by([" Norway."]) and not end.is_answered_by([" France."])


def test_a_bank_without_such_paths_is_said_to_have_none(reader):
    found = run(reader(), Group("added", tuple(PEOPLE), tuple(PEOPLE)))
    assert (found.paths, found.n, found.chains) == (0, 0, {})
    made = two_hop.table(found)
    assert "no path of two hops" in made.note and made.rows[0]["who"] == "nobody was asked"
    assert json.loads(json.dumps(two_hop.as_data(found), allow_nan=False))["model"] is None


def test_paths_that_no_wording_fits_are_counted(reader):
    relations = {**RELATIONS, "country": Relation("", "country", ("In [Y] lies [X].", "[Y]: [X]"))}
    found = run_two_hops(reader(), None, ADDED, relations, SETTINGS)
    assert found.n == 0 and found.excluded == {"no clear trained wording for the second hop": 10}
    assert "10 no clear trained wording for the second hop" in two_hop.table(found).note


def test_ends_are_balanced_and_drawn_by_seed():
    crowd = [made_fact(f"P{n}", "home town", "Rome" if n % 8 else "Oslo") for n in range(400)]
    bank = (*crowd, *TOWNS)
    maker = HopMaker(RELATIONS, bank, SETTINGS)
    hops, _ = maker.choose(two_hop_questions(bank, 0, 10**6), 60)
    ends = [hop.question.answer for hop in hops]
    assert ends.count("Italy") == ends.count("Norway") == 30 and len({hop.question.first.id for hop in hops}) == 60


def test_chinese_sentences_follow_each_other_without_spaces():
    relations = {
        "出生地": Relation("", "出生地", ("[X]出生于[Y]。", "[X]是[Y]人。")),
        "国家": Relation("", "国家", ("[X]位于[Y]", "[X]属于[Y]。")),
    }
    people = [
        made_fact(f"李{n}", "出生地", city)
        for n, city in zip("甲乙丙丁", ["北京", "巴黎", "东京", "首尔"], strict=True)
    ]
    towns = [
        made_fact(c, "国家", k) for c, k in {"北京": "中国", "巴黎": "法国", "东京": "日本", "首尔": "韩国"}.items()
    ]
    hops, _ = HopMaker(relations, [*people, *towns], SETTINGS).choose(two_hop_questions([*people, *towns], 0, 9), 9)
    prompts = {hop.end_question(hop.question.first.object, towns[0], alone=False).prompts[0] for hop in hops}
    assert "李甲出生于北京。北京位于" in prompts and len(prompts) == 4


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (" York. And", "York"),
        (" Yorkshire. And", "Yorkshire"),
        (" new york city", "new york"),
        (" York\nOslo", "York"),
        (" 北京人", "北京"),
        ("", ""),
        (" . And", ""),
    ],
)
def test_what_was_said_ends_with_the_longest_name_or_the_sentence(text, name):
    assert said(text, {"york", "new york", "new", "北京"}) == name


def test_an_oracle_in_the_prompt_hands_out_the_entry_about_the_bridge_that_was_written(reader):
    settings = SETTINGS.model_copy(update={"prompting": "oracle", "prompted_entries": 1})
    model = reader(wrong=[])
    prompted = Prompted(model, model, settings)
    run_two_hops(prompted, prompted, ADDED, RELATIONS, settings)
    asked = [prompt for prompt in model.prompts if prompt.endswith("Oslo. Oslo lies in")]
    assert asked and all("Oslo — country: Norway" in prompt for prompt in asked)

    class Wrong(reader):
        def generate(self, prompts, max_new_tokens, settled=None):
            self.prompts += prompts
            return [" Rome." for _ in prompts]

    model = Wrong()
    prompted = Prompted(model, model, settings)
    run_two_hops(prompted, prompted, ADDED, RELATIONS, settings)
    own = [prompt for prompt in model.prompts if prompt.endswith("21 Smith was born in Rome. Rome lies in")]
    assert own and "Rome — country: Italy" in own[0] and "Norway" not in own[0]


def test_a_model_of_ours_is_asked_through_its_cache_and_twice_alike():
    tokenizer = Tokenizer.train([fact.text for fact in BANK] * 2, vocab_size=400)
    size = {"vocab_size": tokenizer.vocab_size, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    reading = {"kind": "knowledge", "knowledge_dim": 8, "router": "language-loss"}
    model = initialise(LanguageModel(ModelConfig.from_data({**size, "feed_forward": reading})), seed=0).eval()
    give_facts(model, BANK, tokenizer)
    answerer, memory = ModelContinuations(model, tokenizer), ModelMemory.of(model, tokenizer)
    found = [run_two_hops(answerer, memory, ADDED, RELATIONS, SETTINGS) for _ in range(2)]
    assert found[0].n == 10 and found[0].chains == found[1].chains
    assert all(np.array_equal(found[0].outcomes[name], marks) for name, marks in found[1].outcomes.items())
    data = json.loads(json.dumps(two_hop.as_data(found[0]), allow_nan=False))
    assert len(data["outcomes"]["end"]) == 10 == len(data["facts"]) and data["chance"] == {
        "chosen": 0.25,
        "written": 0.0,
    }
