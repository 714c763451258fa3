"""What many tests need: prepared data and a trained run, made once by the verbs themselves, tiny."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lichen.core import logs
from lichen.core.streams import Stream

torch.set_num_threads(1)

_TEXT = "the a moss stone tree rain light grows slowly under over and with green grey old new 苔 藓 石 雨"
WORDS = tuple(_TEXT.split())


@pytest.fixture(autouse=True)
def _no_log_stays_open():
    yield
    logs.stop()


@pytest.fixture(scope="session")
def load_beside() -> Callable[[str, str], ModuleType]:
    """The module ``name`` that lies beside a conftest: ``load_beside(__file__, "stories")``; loaded once."""

    def load(file: str, name: str) -> ModuleType:
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, Path(file).with_name(f"{name}.py"))
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
        return sys.modules[name]

    return load


@pytest.fixture(scope="session")
def made_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL file of 240 made documents."""
    path = tmp_path_factory.mktemp("text") / "made.jsonl"
    draw = Stream(0, "made text").numpy()
    texts = [" ".join(draw.choice(WORDS, size=draw.integers(12, 60))) + "." for _ in range(240)]
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def prepared(made_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, prepared."""
    from lichen.scripts import prepare

    folder = tmp_path_factory.mktemp("prepared") / "data"
    words = [
        "--split.validation-fraction",
        "0.1",
        "--tokenizer.vocab-size",
        "320",
        "--clean.deduplicate.near",
        "false",
    ]
    assert prepare.run([str(made_text), "--output", str(folder), *words]) == 0
    return folder


TINY = {
    "model.hidden_size": 32,
    "model.num_hidden_layers": 2,
    "model.num_attention_heads": 2,
    "model.max_position_embeddings": 64,
    "data.sequence_length": 64,
    "train.epochs": "null",
    "train.batch_size": 4,
    "evaluation.every": 4,
    "evaluation.max_batches": 2,
    "log.every": 1,
}


@pytest.fixture(scope="session")
def tiny_flags(prepared: Path) -> list[str]:
    """Flags of a training that takes a second."""
    flags = {"data.path": prepared, **TINY}
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="session")
def trained_run(tiny_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps."""
    from lichen.scripts import train

    root = tmp_path_factory.mktemp("runs")
    assert train.run([*tiny_flags, "--train.steps", "8", "--run.root", str(root), "--run.name", "tiny"]) == 0
    logs.stop()
    return root / "tiny"
