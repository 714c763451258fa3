"""Files from strangers: pickles, code beside a model, tags in YAML. Whatever they would run leaves a marker; none may appear."""

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from lichen.core.folders import read_manifest, write_manifest
from lichen.core.runs import Run

SOURCE = Path(__file__).parents[2] / "src" / "lichen"


class Payload:
    """Makes a file when unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that must not appear; a pickle makes it, to show that the payload would work."""
    path = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload(path)))
    assert path.exists()
    path.unlink()
    return path


def hostile(folder: Path, marker: Path) -> None:
    """Code and pickles beside the files of a model, named where transformers would look for them."""
    code = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Evil: pass\n"
    for name in ("modeling_evil.py", "tokenization_evil.py", "configuration_evil.py", "__init__.py", "evil.py"):
        (folder / name).write_text(code)
    config = json.loads((folder / "config.json").read_text())
    classes = ("AutoConfig", "AutoModel", "AutoModelForCausalLM")
    config["auto_map"] = {name: f"modeling_evil.{name}" for name in classes}
    (folder / "config.json").write_text(json.dumps(config))
    names = json.loads((folder / "tokenizer_config.json").read_text())
    names["auto_map"] = {"AutoTokenizer": ["tokenization_evil.Evil", None]}
    outside = "cycler.__init__.__globals__.os"
    template = f"{{{{ [].__class__ }}}}{{% for _ in {outside}.popen('touch MARK') %}}{{% endfor %}}"
    names["chat_template"] = template.replace("MARK", str(marker))
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "chat_template.jinja").write_text(names["chat_template"])
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "training/scheduler.pt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(pickle.dumps(Payload(marker)))


@pytest.mark.parametrize("manifest", ["vouched for", "without a manifest", "as it was"])
def test_code_and_pickles_beside_a_model_are_never_run(manifest, run_copy, marker, lichen, tiny_flags, tmp_path):
    latest = Run(run_copy).latest()
    hostile(latest, marker)
    if manifest == "vouched for":
        write_manifest(latest, read_manifest(latest).fingerprint)
    elif manifest == "without a manifest":
        (latest / "MANIFEST.json").unlink()
    flags = [*tiny_flags, "--train.steps", 1, "--run.root", tmp_path / "runs", "--run.name", "new"]
    verbs = (
        ["generate", latest, "--prompt", "the moss", "--max-new-tokens", 2],
        ["chat", latest, "--message", "hello", "--max-new-tokens", 2],
        ["inspect", latest],
        ["inspect", run_copy],
        ["train", *flags, "--init-from", latest],
        ["train", run_copy, "--train.steps", 9],
        ["plot", run_copy],
    )
    for words in verbs:
        said = lichen(*words)
        assert said.status in (0, 1, 2) and "Traceback" not in said.err and "defect" not in said.err, said.err
        assert not marker.exists(), words
        if manifest != "as it was":
            assert said.status == 0 or words[0] == "train", said.err
    for path in (tmp_path / "runs").rglob("*.json"):
        assert "auto_map" not in path.read_text() and "popen(" not in path.read_text()


@pytest.mark.parametrize("name", ["model.safetensors", "training/optimizer.safetensors"])
def test_a_pickle_in_place_of_tensors_is_refused_although_a_manifest_vouches_for_it(name, run_copy, marker, lichen):
    latest = Run(run_copy).latest()
    (latest / name).write_bytes(pickle.dumps(Payload(marker)))
    write_manifest(latest, read_manifest(latest).fingerprint)
    error = lichen("train", run_copy, "--train.steps", 9).refused(1)
    assert name in error and "safetensors" in error and not marker.exists()
    said = lichen("generate", latest, "--prompt", "a", "--max-new-tokens", 1)
    assert (said.status == 1) == (name == "model.safetensors") and not marker.exists()


@pytest.mark.parametrize("name", ["offsets", "bytes"])
def test_a_pickle_inside_an_array_of_prepared_data_is_refused(name, prepared, marker, lichen, tiny_flags, tmp_path):
    folder = Path(shutil.copytree(prepared, tmp_path / "data"))
    array = np.empty(1, dtype=object)
    array[0] = Payload(marker)
    split = "train" if name == "offsets" else "validation"  # bytes are read where bits per byte are computed
    path = next((folder / split).rglob(f"*.{name}.npy"))
    np.save(path, array, allow_pickle=True)
    write_manifest(folder, read_manifest(folder).fingerprint)
    words = ["--data.path", folder, *tiny_flags[2:], "--train.steps", 1, "--run.root", tmp_path / "runs"]
    error = lichen("train", *words).refused(1)
    assert path.name in error and "lichen prepare" in error and not marker.exists()
    assert "Traceback" not in lichen("inspect", folder).err and not marker.exists()


TAGS = (
    "!!python/object/apply:os.system ['touch MARK']",
    "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [MARK]]",
    "!!python/object/new:subprocess.Popen [['touch', 'MARK']]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch MARK']",
)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("verb", ["train", "prepare", "inspect", "doctor"])
def test_a_tag_in_a_recipe_is_refused_with_its_line(tag, verb, marker, lichen, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"seed: 1\noutput: {tag.replace('MARK', str(marker))}\n")
    said = lichen(verb, recipe)
    assert said.status in (1, 2) and "Traceback" not in said.err and not marker.exists()
    assert f"{recipe} line 2: could not determine a constructor" in said.err + said.out


def test_a_tag_in_a_run_yaml_or_a_flag_is_refused(run_copy, marker, lichen):
    tag = TAGS[0].replace("MARK", str(marker))
    assert "constructor" in lichen("train", run_copy, "--train.steps", tag).refused(2) or not marker.exists()
    (run_copy / "run.yaml").write_text(f"train: {tag}\n")
    assert "run.yaml line 1" in lichen("train", run_copy).refused(2) and not marker.exists()


FORBIDDEN = (
    r"\bpickle\.|import pickle|import dill|import joblib",
    r"torch\.load\(",
    r"yaml\.(load|full_load|unsafe_load)\(",
    r"shell=True",
    r"trust_remote_code=True",
    r"allow_pickle=True",
    r"(?<![\w.])(eval|exec)\(",
    r"os\.system\(",
)


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_the_program_has_no_door_for_code(pattern):
    found = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(pattern, line)
    ]
    assert not found
