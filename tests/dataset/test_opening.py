import pytest

from lichen.config.data import DataConfig
from lichen.config.errors import LichenError, UsageError
from lichen.dataset import opening
from lichen.dataset.loader import Loader
from lichen.dataset.mixture import Mixture
from lichen.dataset.opening import open_data
from lichen.dataset.plan import DocumentList, Plan


class FakePrepared:
    """What ``open_data`` asks of a prepared folder."""

    def __init__(self, folder, train, validation, tokenizer="t", bank=None):
        self.folder = folder
        self.tokenizer_folder = folder / "tokenizer"
        self.tokenizer_fingerprint = tokenizer
        self.fingerprint = f"bytes of {folder.name}"
        self.bank_hash = bank
        self.knowledge_folder = folder / "knowledge" if bank else None
        self._splits = {"train": train, "validation": validation}

    def documents(self, split):
        return tuple(self._splits[split])


def made(name, count, weight=None):
    documents = DocumentList(name, [range(2 + i % 20) for i in range(count)])
    documents.weight = float(documents.lengths.sum()) if weight is None else weight
    return documents


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Prepared folders by name; those not named are missing."""
    known = {}

    def add(name, train, validation=(), **options):
        known[tmp_path / name] = FakePrepared(tmp_path / name, train, validation, **options)
        return tmp_path / name

    def find(folder, verify=True):
        if folder not in known:
            raise LichenError(f"{folder}: damaged")
        return known[folder]

    monkeypatch.setattr(opening.Prepared, "open", find)
    return add


def test_one_folder_is_read_whole(folders):
    path = folders("a", [made("x", 20), made("y", 30)], [made("x", 5), made("y", 5)])
    data = open_data(DataConfig(path=path, sequence_length=32), seed=0)
    assert isinstance(data.rows, Plan) and len(data.rows.documents) == 50
    assert data.validation is not None and len(data.validation.documents) == 10
    assert data.tokenizer_folder == path / "tokenizer" and data.sampling["strategy"] == "all"


def test_weights_given_while_preparing_are_kept(folders):
    path = folders("a", [made("x", 20, 3.0), made("y", 30, 1.0)])
    data = open_data(DataConfig(path=path, sequence_length=32), seed=0)
    assert isinstance(data.rows, Mixture) and [float(weight) for weight in data.rows.shares.weights] == [0.75, 0.25]
    assert data.validation is None


def test_folders_are_mixed_by_weight_or_joined(folders):
    a, b = folders("a", [made("x", 20), made("y", 20)]), folders("b", [made("z", 40)])
    weighted = {"sources": [{"path": str(a), "weight": 0.9}, {"path": str(b), "weight": 0.1}], "sequence_length": 32}
    mixed = open_data(DataConfig.from_data(weighted), seed=0)
    assert isinstance(mixed.rows, Mixture) and [float(weight) for weight in mixed.rows.shares.weights] == [0.9, 0.1]
    plain = {"sources": [{"path": str(a)}, {"path": str(b)}], "sequence_length": 32}
    joined = open_data(DataConfig.from_data(plain), seed=0)
    assert isinstance(joined.rows, Plan) and len(joined.rows.documents) == 80
    assert joined.fingerprint == mixed.fingerprint


def test_folders_with_inner_weights_share_by_their_tokens(folders):
    a, b = folders("a", [made("x", 20, 1.0), made("y", 20, 1.0)]), folders("b", [made("z", 40)])
    data = {"sources": [{"path": str(a)}, {"path": str(b)}], "sequence_length": 32}
    rows = open_data(DataConfig.from_data(data), seed=0).rows
    assert isinstance(rows, Mixture) and [float(weight) for weight in rows.shares.weights] == [0.5, 0.5]
    assert isinstance(rows.plans[0], Mixture)
    batch = Loader(rows, 64, pad_id=0).batch(0)
    assert batch.num_targets > 0


def test_a_sample_is_taken_and_recorded(folders):
    path = folders("a", [made("x", 20), made("y", 30)])
    data = open_data(DataConfig(path=path, sequence_length=32, sample=0.5, sample_seed=4), seed=0)
    assert len(data.rows.documents) == 25
    assert data.sampling["seed"] == 4 and data.sampling["sources"][0]["documents"] == 10


def test_a_bad_source_stops_unless_it_may_be_skipped(folders, tmp_path, caplog):
    good = folders("good", [made("x", 20)])
    data = {"sources": [{"path": str(good)}, {"path": str(tmp_path / "bad")}], "sequence_length": 32}
    with pytest.raises(LichenError, match="bad: damaged"):
        open_data(DataConfig.from_data(data), seed=0)
    with caplog.at_level("WARNING"):
        rows = open_data(DataConfig.from_data(data | {"skip_bad_sources": True}), seed=0).rows
    assert len(rows.documents) == 20
    assert "bad: damaged" in caplog.text and "mixture now consists of" in caplog.text


def test_all_sources_bad_stops_even_when_they_may_be_skipped(tmp_path):
    with pytest.raises(LichenError, match="no such folder"):
        open_data(DataConfig(path=tmp_path / "nowhere", skip_bad_sources=True), seed=0)


def test_tokenizers_that_differ_are_refused(folders):
    a, b = folders("a", [made("x", 20)]), folders("b", [made("z", 40)], tokenizer="another")
    with pytest.raises(UsageError, match="another tokenizer"):
        open_data(DataConfig.from_data({"sources": [{"path": str(a)}, {"path": str(b)}]}), seed=0)
    with pytest.raises(UsageError, match="another tokenizer"):
        open_data(DataConfig(path=a, validation=b), seed=0)


def test_a_folder_for_validation_is_read_whole_and_changes_the_fingerprint(folders):
    a, b = folders("a", [made("x", 20)], [made("x", 3)]), folders("b", [made("z", 40)], [made("z", 2)])
    data = open_data(DataConfig(path=a, validation=b, sequence_length=32), seed=0)
    assert data.validation is not None and len(data.validation.documents) == 42
    assert data.fingerprint != open_data(DataConfig(path=a, sequence_length=32), seed=0).fingerprint


def test_validation_does_not_depend_on_the_seed(folders):
    path = folders("a", [made("x", 20)], [made("x", 30)])
    first, second = (open_data(DataConfig(path=path, sequence_length=32), seed=seed) for seed in (0, 1))
    assert first.validation is not None and second.validation is not None
    assert [first.validation.row(n) for n in range(5)] == [second.validation.row(n) for n in range(5)]


def test_empty_folders_are_said(folders):
    empty = folders("empty", [])
    with pytest.raises(LichenError, match=r"empty: no training documents.*rejects\.jsonl"):
        open_data(DataConfig(path=empty), seed=0)
    with pytest.raises(LichenError, match="empty: no documents to validate on"):
        open_data(DataConfig(path=folders("a", [made("x", 3)]), validation=empty), seed=0)


def test_folders_are_linked_with_one_bank_or_none(folders):
    plain, linked = folders("plain", [made("x", 20)]), folders("linked", [made("y", 20)], bank="abc")
    again, other = folders("again", [made("z", 20)], bank="abc"), folders("other", [made("z", 20)], bank="def")

    def opened(*paths):
        sources = [{"path": str(path)} for path in paths]
        return open_data(DataConfig.from_data({"sources": sources, "sequence_length": 32}), seed=0)

    assert opened(plain).knowledge is None
    assert opened(plain, linked, again).knowledge == linked / "knowledge"
    with pytest.raises(UsageError, match=r"other was linked with another bank than .*linked: prepare it again with"):
        opened(plain, linked, other)
    with pytest.raises(UsageError, match="another bank"):
        open_data(DataConfig(path=linked, validation=other), seed=0)
