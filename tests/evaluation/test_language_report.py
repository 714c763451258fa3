"""What was found, as files: the keys others read, tables without gaps, a picture with lines."""

import json
import math

import numpy as np
import pytest

from lichen.config.evaluation import LanguageEvaluation
from lichen.evaluation import language_report
from lichen.evaluation.intervals import Score
from lichen.evaluation.knowledge_report import as_text
from lichen.evaluation.language import LanguageFound
from lichen.evaluation.layers import Gradients, Layer, Look, States
from lichen.evaluation.writing import Continuation, judge

STATES = States(90, 7.5, 7.0, 3.25, 0.5, 0.25, 0.125, -0.01, 12.0)
FIRST = States(5, 2.0, 1.0, math.nan, math.nan, math.nan, 0.9, 0.1, 80.0)


@pytest.fixture
def found():
    texts = [
        Continuation(0, "moss", " on bark", " on | stone\n\x1b[31m", (1, 2, 3, 4, 5), False),
        Continuation(3, "苔", "藓", "藓藓", (7, 7, 7, 7), True),
    ]
    parts = [{"attention": 0.5}, {"attention": 0.25, "feed_forward": 0.125, "router": 0.0, "reader": 0.01}]
    kinds = ["none", "knowledge"]
    layers = [Layer(n, kinds[n], STATES, FIRST, Gradients(0.6, parts[n], 0.1)) for n in range(2)]
    return LanguageFound(
        settings=LanguageEvaluation(),
        context=128,
        documents=2,
        targets=9,
        bits_per_byte=Score(2.5, 2.25, 2.75, 2),
        nats=np.array([3.0, 4.0]),
        bytes=np.array([2, 2]),
        yardsticks={"xz": 3.125},
        writing={"greedy": judge(texts[:1]), "sampled": judge(texts)},
        look=Look(90, 5, 3.5, layers, 1.5, {"embedding": 1.25}),
    )


def test_the_file_has_the_keys_that_others_read(found, tmp_path):
    paths = language_report.write(found, tmp_path / "out", "Language of x", {"checkpoint": "x"})
    assert [path.name for path in paths] == ["language.json", "language.md", "language.png"]
    data = json.loads(paths[0].read_text(encoding="utf-8"))
    assert data["kind"] == "language" and data["checkpoint"] == "x" and data["documents"] == 2
    assert data["bits_per_byte"] == {"value": 2.5, "low": 2.25, "high": 2.75, "n": 2}
    for name in ("distinct_1", "distinct_2", "distinct_3", "repetition", "loops"):
        assert data[name] == data["continuations"]["sampled"][name] and data[name]["value"] is not None
    assert data["distinct_1"]["value"] == pytest.approx((1 + 0.25) / 2)
    assert [text["written"] for text in data["continuations"]["sampled"]["texts"]][1] == "藓藓"
    assert "texts" not in data and data["per_document"] == {"nats": [3.0, 4.0], "bytes": [2, 2]}
    first, second = data["layers"]
    assert {"layer", "effective_rank", "participation_ratio", "cosine_intra", "cosine_inter", "gradient_norm"} <= set(
        first
    )
    assert first["n"] == 90 and first["position_0"]["participation_ratio"] is None
    assert second["gradient_norm_by_part"]["reader"] == 0.01 and data["gradient"]["elsewhere"] == {"embedding": 1.25}


def test_tables_show_every_measure(found, tmp_path):
    shown = as_text(language_report.tables(found))
    for words in (
        "2.5 [2.25, 2.75]",
        "distinct-3, all texts",
        "end in a loop",
        "∇ router",
        "participation",
        "knowledge",
    ):
        assert words in shown
    layers = shown[shown.index("Layers") :].splitlines()
    assert layers[2].split()[-5:-1] == ["0.5", "–", "–", "–"], "a part that a layer lacks is no zero"
    assert "n 90 positions of 5 texts" in layers[-1]
    language_report.write(found, tmp_path, "Language of x")
    page = (tmp_path / "language.md").read_text(encoding="utf-8")
    assert "### Texts, sampled" in page and "\x1b" not in page and "     on | stone" in page


def test_without_texts_and_layers_there_is_less(found, tmp_path):
    from dataclasses import replace

    bare = replace(found, writing={}, look=None)
    assert [path.name for path in language_report.write(bare, tmp_path, "x")] == ["language.json", "language.md"]
    data = json.loads((tmp_path / "language.json").read_text(encoding="utf-8"))
    assert data["layers"] == [] and data["gradient"] is None and "distinct_1" not in data
    assert len(language_report.tables(bare)) == 1


def test_the_picture_has_a_line_per_part_and_per_rank(found, tmp_path):
    norms, ranks = language_report._norms(found.look), language_report._ranks(found.look)
    assert list(norms) == ["layer", "attention", "feed-forward", "router", "reader"] and len(ranks) == 3
    language_report.plot(found.look, tmp_path / "a.png")
    from PIL import Image

    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert pixels.shape[1] > 900 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
