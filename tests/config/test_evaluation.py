"""Settings of an examination: wrong ones are named."""

import pytest

from lichen.config.errors import ConfigError
from lichen.config.evaluation import KnowledgeEvaluation


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"groups": ["sen"]}, "nearest: seen"),
        ({"wordings": ["unsen"]}, "nearest: unseen"),
        ({"questions": 0}, "questions"),
        ({"normalise": "max"}, "normalise"),
        ({"edit": 3}, "nearest: edits"),
    ],
)
def test_what_is_wrong_is_said_with_the_nearest_name(data, words):
    with pytest.raises(ConfigError, match=words):
        KnowledgeEvaluation.from_data(data)
