"""From a name to a model and its tokenizer.

``load`` takes what `resolve_checkpoint` takes (``RUN``, ``RUN@best``, ``RUN@latest``, ``RUN@step-N``, a checkpoint), with
``+averaged`` after it the averaged weights that the training kept (``RUN@best+averaged``), and any Hugging Face folder of
the types the model floor reads (Lichen, Llama, Qwen3). A folder with a manifest is verified file by file; and a tokenizer
that is not the one the weights were trained with is refused, for it would give every token another meaning.

>>> import tempfile
>>> from lichen.config.model import ModelConfig
>>> from lichen.model.language_model import initialise
>>> from lichen.model.weights import write_model
>>> tokenizer = Tokenizer.train(["a cat and a hat"] * 4, vocab_size=330)
>>> small = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
>>> with tempfile.TemporaryDirectory() as folder:
...     write_model(initialise(LanguageModel(small), seed=0), Path(folder))
...     tokenizer.save(folder)
...     model, loaded = load(folder, device="cpu")
>>> model.training, loaded.decode(loaded.encode("a hat"))
(False, 'a hat')
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch

from lichen.config.errors import LichenError, UsageError, nearest
from lichen.core.device import get_best_device, is_available
from lichen.core.folders import MANIFEST, read_manifest
from lichen.core.runs import AVERAGES, resolve_checkpoint
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.memory import find_bank, give_bank
from lichen.model.language_model import LanguageModel
from lichen.model.weights import read_model

Dtype = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AVERAGED = "+averaged"
"""What follows a checkpoint's name to mean its averaged weights."""
MOST_PADDING = 1024
"""Writers round a vocabulary up for speed; rows beyond this are no rounding, but another tokenizer."""


def load(
    spec: str | Path, device: torch.device | str | None = None, dtype: torch.dtype | Dtype | None = None
) -> tuple[LanguageModel, Tokenizer]:
    """The model, in evaluation mode on ``device`` (unset, the best) in ``dtype`` (unset, float32), and its tokenizer.

    Raises:
        UsageError: no such run, checkpoint, device or dtype; a model of a type we do not have.
        LichenError: a damaged file, named; a tokenizer that is not the model's.
    """
    name = os.fspath(spec)
    folder = resolve_checkpoint(name.removesuffix(AVERAGED))
    placed, wanted = _device(device), _dtype(dtype)
    tokenizer = Tokenizer.load(folder)
    check_tokenizer(folder, tokenizer)
    model = read_model(folder, placed, wanted)
    check_vocabulary(folder, model, tokenizer)
    give_bank(model, find_bank(folder), tokenizer, str(folder))
    if name.endswith(AVERAGED):
        take_averages(model, folder)
    return model, tokenizer


@torch.no_grad()
def take_averages(model: LanguageModel, folder: Path) -> None:
    """Make the averaged weights of a checkpoint those of ``model``. Raises UsageError where the training kept none."""
    from safetensors.torch import load_file

    if not (folder / AVERAGES).is_file():
        raise UsageError(f"{folder}: holds no averaged weights; leave {AVERAGED} out, or train with averages.enabled")
    averages = load_file(folder / AVERAGES)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name in averages:  # what is frozen has no average
            parameter.copy_(averages[parameter_name])


def check_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Compare with the hash that was written down when the checkpoint was; folders from elsewhere have none."""
    if not (folder / MANIFEST).is_file():
        return
    trained_with = read_manifest(folder).fingerprint.get("tokenizer")
    if trained_with is not None and trained_with != tokenizer.fingerprint:
        raise LichenError(
            f"{folder / 'tokenizer.json'}: not the tokenizer the model was trained with "
            f"({tokenizer.fingerprint[:12]} instead of {str(trained_with)[:12]}); put that one back"
        )


def check_vocabulary(folder: Path, model: LanguageModel, tokenizer: Tokenizer) -> None:
    """Every id must have an embedding, and every embedding (but for some padding) an id."""
    known, embedded = tokenizer.vocab_size, model.config.vocabulary
    if known > embedded or embedded > known + MOST_PADDING:
        raise LichenError(
            f"{folder}: the tokenizer has {known} ids and the model {embedded}; they do not belong together, "
            "put back the tokenizer.json the model was trained with"
        )


def _device(device: torch.device | str | None) -> torch.device:
    if device is None:
        return get_best_device()
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or not is_available(found.type):
        available = [kind for kind in ("cuda", "mps", "cpu") if is_available(kind)]
        raise UsageError(f"device {device}: this machine has none such{nearest(str(device), available)}")
    return found


def _dtype(dtype: torch.dtype | Dtype | None) -> torch.dtype:
    if dtype is None:
        return torch.float32
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r}: there is none such{nearest(dtype, DTYPES)}")
    return DTYPES[dtype]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
