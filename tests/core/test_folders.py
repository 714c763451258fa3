"""Whole or not at all, and damage is named."""

import json
import random
from pathlib import Path

import pytest

from lichen.config.errors import LichenError
from lichen.core import folders
from lichen.core.folders import (
    MANIFEST,
    HashingWriter,
    exchange,
    partial_of,
    read_manifest,
    recover,
    remove_folder,
    sha256_file,
    stale_siblings,
    verify,
    whole_folder,
    write_file,
    write_manifest,
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make(tmp_path / "place", b"one")


def make(path: Path, data: bytes, replace: bool = False) -> Path:
    with whole_folder(path, {"seed": 1}, replace=replace) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "b.bin").write_bytes(data * 100)
        (folder / "a.json").write_text("{}")
    return path


def test_files_are_replaced_whole(tmp_path: Path):
    write_file(tmp_path / "a", "héllo")
    write_file(tmp_path / "a", b"\x00\x01")
    assert (tmp_path / "a").read_bytes() == b"\x00\x01"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_file(tmp_path / "a", "old")
    monkeypatch.setattr(folders, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(LichenError, match="no space left"):
        write_file(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_manifest_holds_sizes_checksums_and_fingerprint(place: Path):
    manifest = read_manifest(place)
    assert manifest.fingerprint == {"seed": 1}
    assert {name: entry.bytes for name, entry in manifest.files.items()} == {"a.json": 2, "below/b.bin": 300}
    assert manifest.files["below/b.bin"].sha256 == sha256_file(place / "below" / "b.bin")
    assert verify(place) == []


def test_hash_while_writing_equals_hash_afterwards(tmp_path: Path):
    data = random.Random(0).randbytes(5_000_000)
    with HashingWriter(tmp_path / "a") as file:
        file.write(data[:7])
        file.write(memoryview(data)[7:])
    assert (tmp_path / "a").read_bytes() == data
    assert (file.entry.bytes, file.entry.sha256) == (len(data), sha256_file(tmp_path / "a", from_disk=True))


def test_entries_known_already_are_taken_and_still_verified(tmp_path: Path):
    known: dict = {}
    words = "reads back differently than written: a: checksum differs"
    with pytest.raises(LichenError, match=words), whole_folder(tmp_path / "x", known=known) as folder:
        with HashingWriter(folder / "a") as file:
            file.write(b"abc")
        known["a"] = file.entry
        (folder / "a").write_bytes(b"abd")  # what a bad disk would do
    assert not (tmp_path / "x").exists() and not stale_siblings(tmp_path)


def test_a_replacement_that_reads_back_wrong_leaves_the_old_one(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folders, "verify", lambda *_, **__: ["a: checksum differs"])
    with pytest.raises(LichenError, match="reads back differently"):
        make(place, b"two", replace=True)
    monkeypatch.undo()
    assert verify(place) == [] and (place / "below" / "b.bin").read_bytes() == b"one" * 100


def test_an_existing_place_is_refused_unless_told(place: Path):
    with pytest.raises(LichenError, match="exists already; choose another name"):
        make(place, b"two")
    make(place, b"two", replace=True)
    assert (place / "below" / "b.bin").read_bytes() == b"two" * 100
    assert verify(place) == [] and not stale_siblings(place.parent)


def test_replacing_without_the_systems_exchange(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folders, "exchange", lambda *_: False)
    make(place, b"two", replace=True)
    assert (place / "below" / "b.bin").read_bytes() == b"two" * 100
    assert verify(place) == [] and not stale_siblings(place.parent)


def test_killed_between_the_two_renames_the_old_one_comes_back(place: Path):
    place.rename(place.with_name(".place.replaced"))
    recover(place)
    assert verify(place) == [] and not stale_siblings(place.parent)


def test_exchange_swaps_or_says_no(tmp_path: Path):
    make(tmp_path / "x", b"x")
    make(tmp_path / "y", b"y")
    swapped = exchange(tmp_path / "x", tmp_path / "y")
    assert (tmp_path / "x" / "below" / "b.bin").read_bytes()[:1] == (b"y" if swapped else b"x")


def test_an_error_inside_removes_the_sibling(tmp_path: Path):
    with pytest.raises(KeyError), whole_folder(tmp_path / "x") as folder:
        (folder / "a").write_text("a")
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_leftovers_of_a_killed_writer_do_not_leak_in(tmp_path: Path):
    partial = partial_of(tmp_path / "x")
    partial.mkdir()
    (partial / "old.bin").write_text("old")
    with whole_folder(tmp_path / "x") as folder:
        (folder / "new.bin").write_text("new")
    assert sorted(read_manifest(tmp_path / "x").files) == ["new.bin"] and not stale_siblings(tmp_path)


# --- Damage ---


def test_cut_at_twenty_offsets(place: Path):
    for path in (place / "below" / "b.bin", place / MANIFEST):
        whole = path.read_bytes()
        for i in range(20):
            path.write_bytes(whole[: len(whole) * i // 20])
            assert path.name in verify(place)[0], i
        path.write_bytes(whole)
    assert verify(place) == []


def test_flipped_bits_anywhere_also_in_the_manifest(place: Path):
    rng = random.Random(0)
    for path in (place / "below" / "b.bin", place / MANIFEST):
        whole = path.read_bytes()
        for _ in range(50):
            damaged = bytearray(whole)
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            assert path.name in verify(place)[0]
        path.write_bytes(whole)


def test_missing_extra_and_foreign_things_are_named(place: Path):
    (place / "optimizer.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    assert verify(place) == [f"optimizer.bin: extra, not in {MANIFEST}"]
    (place / "optimizer.bin").unlink()
    (place / "link").symlink_to("/etc")
    assert verify(place) == [f"link: extra, not in {MANIFEST}"]
    (place / "link").unlink()
    (place / "a.json").unlink()
    assert verify(place) == ["a.json: missing"]
    (place / "a.json").symlink_to("/etc/hostname")
    assert verify(place) == ["a.json: not a regular file"]
    (place / MANIFEST).unlink()
    assert "never finished" in verify(place)[0]
    assert verify(place / "nowhere") != []


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"files": []}', "[" * 100_000, '{"files": {"a": 1}}'])
def test_a_manifest_that_is_none(place: Path, text: str):
    (place / MANIFEST).write_text(text)
    with pytest.raises(LichenError, match=MANIFEST):
        read_manifest(place)


def test_an_edited_manifest_is_noticed(place: Path):
    data = json.loads((place / MANIFEST).read_text())
    data["fingerprint"]["seed"] = 2
    (place / MANIFEST).write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    assert "altered" in verify(place)[0]


def test_manifest_of_a_folder_made_by_others(tmp_path: Path):
    (tmp_path / "a").write_text("a")
    write_manifest(tmp_path)
    assert verify(tmp_path) == []


def test_new_folders_have_their_names_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced = []
    monkeypatch.setattr(folders, "fsync_folder", synced.append)
    folders.make_folder(tmp_path / "a" / "b")
    folders.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir() and synced == [tmp_path / "a", tmp_path]


def test_what_killed_writers_left_inside_is_not_described_but_removed(tmp_path: Path):
    """A folder that is filled over several sittings may hold the half-written files of one that was killed."""
    (tmp_path / "sub").mkdir()
    write_file(tmp_path / "sub" / "a", "a")
    partial_of(tmp_path / "sub" / "b").write_text("b")
    partial_of(tmp_path / MANIFEST).write_text("{")
    assert sorted(write_manifest(tmp_path).files) == ["sub/a"]
    assert verify(tmp_path) == [] and sorted(p.name for p in tmp_path.rglob("*")) == [MANIFEST, "a", "sub"]


def test_removing_takes_the_manifest_first(place: Path, monkeypatch: pytest.MonkeyPatch):
    removed = []
    monkeypatch.setattr(folders, "unlink", lambda path: (removed.append(path.name), path.unlink()))
    (place / "link").symlink_to("/etc")
    remove_folder(place)
    remove_folder(place)
    assert removed[0] == MANIFEST and not place.exists() and Path("/etc").exists()
