"""What of a training goes into a checkpoint, and how it comes out again.

`Saver` knows disks and threads, `Checkpoint` knows files; a `Keeper` knows the parts of one training. All ranks call it, since
gathering sharded tensors takes all of them; rank 0 writes.

>>> tokenizer = Tokenizer.train(["a lichen"] * 4, vocab_size=325)
>>> files = checkpoint_files(ModelConfig(vocab_size=tokenizer.vocab_size), tokenizer)
>>> sorted(files)
['README.md', 'chat_template.jinja', 'config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json']
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lichen.config.errors import LichenError
from lichen.config.model import ModelConfig
from lichen.core.logs import get_logger
from lichen.core.runs import Run
from lichen.dataset.tokenizer import Tokenizer
from lichen.metrics.records import Records
from lichen.model.language_model import LanguageModel
from lichen.model.weights import load_weights, state_for_saving, write_config
from lichen.trainer.averages import Averages
from lichen.trainer.checkpoints import Checkpoint, Contents, collect_files, read_checkpoint
from lichen.trainer.optimizers import Optimizer
from lichen.trainer.runtime import Runtime
from lichen.trainer.saving import Saver
from lichen.trainer.state import State, load_optimizer_state, optimizer_state_to_tensors

_log = get_logger("training")


@dataclass(kw_only=True)
class Keeper:
    """Puts the parts of a training into checkpoints, and takes them out again. Called on all ranks; rank 0 writes."""

    module: LanguageModel
    optimizer: Optimizer
    averages: Averages | None
    state: State
    saver: Saver | None
    """None on other ranks."""
    runtime: Runtime
    run: Run
    fingerprint: dict[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)
    records: Records | None = None
    """The metrics file, on rank 0; synced before each save, as a checkpoint relies on the rows before it."""

    def save(self, reason: str, final: bool = False) -> None:
        """Write a checkpoint of this step. Raises SavingFailed after too many failures in a row."""
        contents = Contents(
            state=self.state,
            weights=state_for_saving(self.module),
            optimizer=optimizer_state_to_tensors(self.module, self.optimizer.parts),
            averages=None if self.averages is None else self.averages.tensors(),
            module=self.module.training_state() or None,
            files=self.files,
            fingerprint=self.fingerprint,
        )
        if self.records is not None:
            self.records.sync()
        if self.saver is not None:
            self.saver.save(contents, final=final)
            _log.info(f"step {self.state.step}: saving ({reason})")

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take weights, moments and averages over."""
        weights, moments, averages = checkpoint.weights(), checkpoint.optimizer(), checkpoint.averages()
        if self.averages is not None and averages is None:
            raise LichenError(f"{checkpoint.folder}: holds no averaged weights; set averages.enabled false")
        load_weights(self.module, weights, str(checkpoint.folder))
        self.module.load_training_state(checkpoint.module())
        load_optimizer_state(self.module, self.optimizer.parts, moments)
        if self.averages is not None and averages is not None:
            self.averages.load(averages)

    def rollback(self) -> State | None:
        """Weights, moments and averages of the latest checkpoint again; its state, or None where there is none yet."""
        self.wait()
        checkpoint = agreed_checkpoint(self.run, self.runtime)
        if checkpoint is not None:
            self.restore(checkpoint)
            self.runtime.meet()  # before rank 0 saves and prunes again
        return None if checkpoint is None else checkpoint.state

    @property
    def failed(self) -> bool:
        """Whether the last save failed; known to rank 0 alone."""
        return self.saver is not None and self.saver.failed

    def wait(self) -> None:
        """Until what is being written is on the disk."""
        if self.saver is not None:
            self.saver.wait()


def agreed_checkpoint(run: Run, runtime: Runtime) -> Checkpoint | None:
    """The newest whole checkpoint, found and verified by rank 0 and read by all; None where there is none.

    Raises LichenError when all are damaged.
    """
    name = None
    if runtime.is_master and run.checkpoint_folders():
        name = run.latest().name
    name = runtime.broadcast(name, patient=True)
    return None if name is None else read_checkpoint(run.checkpoints / name, verified=True)


def checkpoint_files(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, bytes]:
    """What lies in every checkpoint beside the weights: a Hugging Face model folder's small files."""
    ids = {"eos_token_id": tokenizer.eos_id, "bos_token_id": tokenizer.bos_id, "pad_token_id": tokenizer.pad_id}
    files = collect_files(tokenizer.save, lambda folder: write_config(config, folder, ids))
    generation = {**ids, "eos_token_id": list(tokenizer.stop_ids), "max_length": None}
    return files | {
        "README.md": _README.encode(),
        "generation_config.json": (json.dumps(generation, indent=2) + "\n").encode(),
    }


_README = """---
library_name: transformers
---

A language model trained with Lichen. `import lichen.model.hf` before `AutoModelForCausalLM.from_pretrained(folder)`, or
`lichen generate folder --prompt "..."`. `training/` holds what continuing the training needs and may be deleted.
"""


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
