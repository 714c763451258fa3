"""Everything about a training but its model and its data: one frozen section per concern.

A verb composes the sections it needs (`lichen.scripts.train.TrainRecipe`). The defaults are those people expect from
small-model trainings: cosine to a tenth of the maximum, three percent warm-up, clipping at one, decay on matrices only.

>>> TrainConfig(steps=100).batch_size, ScheduleConfig().name, EvaluationConfig().every
(32, 'cosine', 500)
>>> TrainConfig.from_data({}).epochs, TrainConfig.from_data({"steps": 100}).epochs
(1.0, None)
>>> TrainConfig.from_data({"steps": 100, "epochs": 2})
Traceback (most recent call last):
    ...
lichen.config.errors.ConfigError: 1 problem in the configuration:
  the recipe = {"steps": 100, "epochs": 2}: give steps or epochs, not both
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lichen.config.base import Config

AUX_WEIGHTS = {
    **{"router_z": 1e-3, "router": 0.1, "router_null": 0.15, "router_subject": 0.05, "router_carry": 0.05},
    **{"router_hit": 0.0, "router_false_read": 0.0},
}
"""Usual factors that are others: ST-MoE's z-loss; a memory's router, whose gradients are then as long as the text's in the layers
that they share (with 1 they are ten times as long, and text is learnt worse while facts are found no sooner); two mere rates."""


class RunConfig(Config):
    """Where the run folder lies."""

    root: Path = Path("runs")
    """Folder that holds all runs."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,159}$")
    """Name of the run folder below root; made of model, size, variant, batch, learning rate and date unless given."""


class TrainConfig(Config):
    """How long, how much at once, how exactly."""

    exclusive = (("steps", "epochs"),)

    steps: int | None = Field(default=None, ge=1)
    """Optimizer updates in all. Give this or epochs."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the training data; one unless steps are given."""
    batch_size: int = Field(default=32, ge=1)
    """Rows per optimizer update, over all ranks and micro-batches."""
    accumulation: int = Field(default=1, ge=1)
    """Micro-batches per update on every rank; changes memory, never the gradient."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Autocast type; auto is bf16 where the device computes in it and fp32 elsewhere, with matrix products in TF32 on CUDA unless
    this is fp32. fp16 needs CUDA."""
    compile: bool = False
    """Compile the model with torch.compile."""
    clip: float = Field(default=1.0, ge=0)
    """Largest global gradient norm; larger gradients are scaled down to it. 0 switches clipping off."""
    seed: int = Field(default=0, ge=0)
    """Seed of the initial weights and of everything random in training; the data's order has its own."""
    aux_weight: float = Field(default=0.01, ge=0)
    """Usual factor of an auxiliary loss (Switch Transformer's balance loss uses 0.01); a router's z-loss has 0.001 and the labels
    of a memory's router have 0.05 to 0.15."""
    aux_weights: dict[str, float] = Field(default_factory=dict)
    """Factor per auxiliary loss, by its name, where it is not to be the usual one; 0 only shows it."""
    max_consecutive_skips: int = Field(default=10, ge=1)
    """So many steps in a row without a finite loss and gradient end the training."""
    spike_factor: float = Field(default=3.0, gt=1)
    """A loss above this multiple of its moving mean is logged as a spike."""
    spike_rollbacks: int = Field(default=0, ge=0, le=3)
    """How often a spike may send the training back to its latest checkpoint, skipping the rows between; 0 only logs."""
    halve_on_out_of_memory: bool = False
    """Out of memory doubles the accumulation and repeats the step, instead of ending the training with advice."""
    threads: int | None = Field(default=None, ge=1)
    """Threads that compute on the CPU, in each process; left out: torch's own choice."""
    timeout: float = Field(default=300.0, gt=0)
    """Seconds after which ranks give up on one that does not answer; reading and writing a lot on rank 0 may take longer."""

    def aux_factor(self, name: str) -> float:
        """What the auxiliary loss ``name`` is multiplied by.

        >>> TrainConfig().aux_factor("balance"), TrainConfig(aux_weights={"router": 0.5}).aux_factor("router")
        (0.01, 0.5)
        """
        return self.aux_weights.get(name, AUX_WEIGHTS.get(name, self.aux_weight))

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = [name for name in ("steps", "epochs") if data.get(name) is not None]
        if len(given) > 1:
            raise ValueError("give steps or epochs, not both")
        return data if given else {**data, "epochs": 1.0}


class OptimConfig(Config):
    """The optimizer. Weight decay applies to matrices only: not to norms, biases, nor (unless asked) embeddings."""

    name: Literal["adamw", "adam", "muon", "sgd"] = "adamw"
    """adamw; adam (no decay); muon (matrices of the blocks by Muon, the rest by AdamW); sgd (plain, for proofs)."""
    lr: float = Field(default=5e-4, gt=0)
    """Maximum learning rate; the schedule multiplies it."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of Adam's moments."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to Adam's denominator."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled decay of matrices."""
    decay_embeddings: bool = False
    """Decay the embedding table (and the head tied to it) as well."""
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    """Momentum of Muon."""
    muon_iterations: int = Field(default=5, ge=1)
    """Newton-Schulz iterations of Muon."""

    @field_validator("betas")
    @classmethod
    def _in_range(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("both betas must lie in [0, 1)")
        return betas


class ScheduleConfig(Config):
    """The learning rate as a pure function of the step: warm-up, then a shape from 1 down to floor, then held."""

    name: Literal["cosine", "linear", "polynomial", "constant", "warmup_stable_decay", "wsd"] = "cosine"
    """Shape after the warm-up; wsd is short for warmup_stable_decay."""
    function: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")
    """`package.module:function` to use instead: (step, total, schedule) -> multiplier of the learning rate."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises as (step + 1) / warm-up steps."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Warm-up in steps, instead of the share."""
    floor: float = Field(default=0.1, ge=0, le=1)
    """Lowest multiple of the maximum learning rate."""
    power: float = Field(default=2.0, gt=0)
    """Exponent of the polynomial shape."""
    decay: float = Field(default=0.2, gt=0, le=1)
    """Share of the steps at the end in which warmup_stable_decay falls, linearly."""
    length: int | None = Field(default=None, ge=1)
    """Steps of the schedule where they are not the training's; the floor is held afterwards."""


class EvaluationConfig(Config):
    """Validation inside the training."""

    every: int = Field(default=500, ge=0)
    """Steps between validations; 0 switches them off. The last step is validated in any case unless this is 0."""
    max_batches: int = Field(default=64, ge=1)
    """Validate on at most so many batches."""
    save_with_evaluation: bool = True
    """Write a checkpoint at every validation."""


class CheckpointConfig(Config):
    """When checkpoints are written and which are kept. The last state of a training is always written."""

    every: int = Field(default=0, ge=0)
    """Steps between checkpoints beside those of validations; 0 adds none."""
    keep_last: int = Field(default=3, ge=1)
    """So many of the newest checkpoints are kept, and the best one."""
    asynchronous: bool = True
    """Write in a thread, from a copy of the state in host memory."""
    max_failures: int = Field(default=3, ge=1)
    """So many failed saves in a row (a full disk) end the training."""


class AveragesConfig(Config):
    """An exponential moving average of the weights, validated beside them; `RUN@best+averaged` loads it. Best is judged by the
    weights themselves."""

    enabled: bool = False
    """Keep the average."""
    decay: float = Field(default=0.999, gt=0, lt=1)
    """Share of the average kept at every update."""
    warm_up: bool = True
    """Use (1 + n) / (10 + n) at the n-th update while that is smaller, so that the random start is soon forgotten."""


class EarlyStoppingConfig(Config):
    """Stop when validation no longer improves."""

    enabled: bool = False
    """Stop early."""
    patience: int = Field(default=5, ge=1)
    """Validations in a row without an improvement that end the training."""
    min_delta: float = Field(default=0.0, ge=0)
    """Smallest decrease of the validation loss that gives new patience; the best checkpoint is the best by any margin."""


class BankConfig(Config):
    """The facts of a model with a readable memory."""

    database_init_path: Path | None = None
    """Bank that `lichen knowledge build` made, to start with; left out: the one that the data was prepared with."""
    cluster_cache_path: Path | None = None
    """Folder for the bank's token ids, kept by the version of bank and tokenizer; left out: beside the run's bank."""


class LogConfig(Config):
    """What is written while training."""

    every: int = Field(default=10, ge=1)
    """Steps between rows of metrics.jsonl and updates of the progress line."""
    statistics_every: int = Field(default=100, ge=1)
    """Steps between rows that also hold the time split (data, forward and backward with the exchange of gradients, optimizer,
    communication of counts and losses, other) and the memory."""
    window: int = Field(default=100, ge=1)
    """Steps the moving mean of the loss looks back on; clip rate and clip ratio are of the steps since the row before."""
    prompts: tuple[str, ...] = ()
    """Texts to be continued into samples.md at every validation."""
    sample_tokens: int = Field(default=64, ge=1)
    """Length of these continuations."""
    trackers: tuple[Literal["jsonl"], ...] = ("jsonl",)
    """Trackers beside metrics.jsonl, which is written in any case and is the only one so far."""


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
