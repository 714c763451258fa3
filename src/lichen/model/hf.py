"""The language model as Hugging Face knows models: importing this module registers it with transformers.

``LichenForCausalLM`` holds the parts of a ``LanguageModel`` under the same names and computes through it, without a copy: what
PEFT or a trainer replaces in one is replaced in the other. Checkpoint folders load with
``AutoModelForCausalLM.from_pretrained``; missing and unexpected weights are errors here. ``generate`` works with transformers'
own caches and with padding on either side.

>>> model = LichenForCausalLM(LichenConfig(vocab_size=9, hidden_size=8, num_attention_heads=2, num_hidden_layers=1))
>>> model.generate(torch.tensor([[1, 2]]), max_new_tokens=3, do_sample=False, eos_token_id=None).shape
torch.Size([1, 5])
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, LlamaConfig, PreTrainedModel
from transformers.generation.utils import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from lichen.config.errors import LichenError
from lichen.config.model import ModelConfig
from lichen.core.batch import IGNORE_TARGET, PADDING_SEGMENT, Batch
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.weights import from_hf_config, to_hf_config


class LichenConfig(LlamaConfig):
    """``config.json`` of a checkpoint: Llama's fields, ``qk_norm`` and the feed-forward parts as plain data."""

    model_type = "lichen"

    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    qk_norm: bool = False
    feed_forward: dict | None = None
    feed_forward_by_layer: dict | None = None

    def validate_architecture(self) -> None:
        """Nothing here: ``ModelConfig`` checks when the model is built, and knows more kinds."""

    def to_model_config(self) -> ModelConfig:
        """The same as our own configuration. Raises UsageError or ConfigError for what there is not."""
        return from_hf_config({**self.to_dict(), "model_type": "lichen"})

    @classmethod
    def of(cls, config: ModelConfig) -> LichenConfig:
        """Our own configuration as a Hugging Face one."""
        data = to_hf_config(config)
        return cls(
            **{key: value for key, value in data.items() if key not in ("model_type", "rope_theta", "rope_scaling")}
        )


class LichenForCausalLM(PreTrainedModel, GenerationMixin):
    """A ``LanguageModel`` with transformers' interface."""

    config_class = LichenConfig
    config: LichenConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["Block"]
    _tied_weights_keys = None  # pyright: ignore[reportAssignmentType]
    _supports_sdpa = True

    def __init__(self, config: LichenConfig, language_model: LanguageModel | None = None):
        super().__init__(config)
        inner = language_model
        if inner is None:
            inner = LanguageModel(config.to_model_config())
            if not inner.head_weight.is_meta:
                initialise(inner, seed=torch.initial_seed())
        self.model, self.lm_head, self.shared = inner.model, inner.lm_head, inner.shared
        object.__setattr__(self, "_inner", inner)  # not a submodule: its parts already are
        self.post_init()

    @classmethod
    def wrap(cls, model: LanguageModel) -> LichenForCausalLM:
        """``model`` itself behind this interface, sharing every weight."""
        return cls(LichenConfig.of(model.config), model)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **options: Any) -> Any:
        """As transformers', but raises LichenError where weights are missing, unexpected or misshapen."""
        wants_info = options.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **options)
        model, info = loaded
        problems = [
            f"{name}: {info[name]}" for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[name]
        ]
        if problems:
            raise LichenError(
                f"{pretrained_model_name_or_path} does not hold this model's weights: {'; '.join(problems)}"
            )
        return (model, info) if wants_info else model

    @property
    def language_model(self) -> LanguageModel:
        """The model inside, with the parts as they are now."""
        inner: Any = self._inner
        inner.model, inner.lm_head, inner.shared = self.model, self.lm_head, self.shared
        return inner

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: ``initialise`` has filled a new model, and a loaded one has all of its weights."""

    def get_output_embeddings(self) -> nn.Module | None:
        """The head, or None where the embedding serves as one."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the head of a model that has one of its own."""
        if self.lm_head is not None:
            self.lm_head = new_embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """``input_ids [B, T]`` → logits ``[B, T or fewer, V]``, and the mean loss where ``labels`` (not shifted) are given.

        ``attention_mask [B, past + T]`` is 0 on padding, on either side.
        """
        if options.get("inputs_embeds") is not None:
            raise LichenError("inputs_embeds are not supported: give input_ids")
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        cache = _cache_for(input_ids, attention_mask, position_ids, past_key_values)
        batch = _batch_of(input_ids, cache)
        output = self.language_model(batch, want="logits", cache=cache)
        logits = output.logits
        if isinstance(logits_to_keep, Tensor) or logits_to_keep:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = logits[:, kept]
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1], **options)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)


class _HuggingFaceCache:
    """transformers' cache and mask, as attention takes them. Without a cache it only masks."""

    def __init__(self, past: Any, mask: Tensor | None, positions: Tensor, fresh: bool, seen: int):
        self._past, self._mask, self._seen = past, mask, seen
        self.positions = positions
        self.fresh = fresh
        self.reach = max(int(positions.max()) + 1, seen + positions.shape[1])

    def prepare(self, batch: Batch) -> Tensor | None:
        width, device = batch.tokens.shape[1], batch.tokens.device
        total = self._seen + width
        if self._past is not None:
            total = max(total, self._past.get_mask_sizes(width, 0)[0])
        if self.fresh or (self._mask is None and width == 1 and total == self._seen + 1):
            return None
        if self._mask is not None and self._mask.dim() == 4:
            return self._mask[..., :total]
        keys = torch.arange(total, device=device)
        queries = self._seen + torch.arange(width, device=device)
        visible = (keys <= queries[:, None])[None, None]
        if self._mask is None:
            return visible
        real = torch.zeros(batch.rows, total, dtype=torch.bool, device=device)
        real[:, : self._mask.shape[1]] = self._mask.bool()
        itself = keys == queries[:, None]  # so that padding, too, has something to look at
        return (visible & real[:, None, None]) | itself

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return (keys, values) if self._past is None else self._past.update(keys, values, layer)

    def advance(self, batch: Batch) -> None:
        """transformers' cache counts by itself."""

    def padding(self, width: int) -> Tensor | None:
        """``[B, width]`` True where the batch's own tokens are padding, as far as the mask tells."""
        return None if self._mask is None or self._mask.dim() == 4 else self._mask[:, -width:] == 0


def _cache_for(tokens: Tensor, mask: Tensor | None, positions: Tensor | None, past: Any) -> _HuggingFaceCache | None:
    """What to attend through; None where rows are plain texts from their beginning and nothing is to be kept."""
    mask = _settle_mask(mask)
    seen = int(past.get_seq_length()) if past is not None else 0
    width = tokens.shape[1]
    counted = seen + torch.arange(width, device=tokens.device).expand(tokens.shape)
    if mask is not None and mask.dim() == 2:
        counted = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -width:]
    positions = counted if positions is None else positions.expand(tokens.shape)
    plain = mask is None and seen == 0 and bool((positions == counted).all())
    if plain and past is None:
        return None
    whole = past is None or past.get_mask_sizes(width, 0)[0] == width
    return _HuggingFaceCache(past, mask, positions, fresh=plain and whole, seen=seen)


def _settle_mask(mask: Tensor | None) -> Tensor | None:
    """None where nothing is padded, ``[B, past + T]`` with 0 on padding, or ``[B, 1, T, K]`` bool, True where a key is seen."""
    if mask is None or (mask.dim() == 2 and bool(mask.all())):
        return None
    if mask.dim() not in (2, 4):
        raise LichenError("attention_mask must be [rows, tokens], 0 on padding, or [rows, 1, tokens, keys]")
    return mask == 0 if mask.dim() == 4 and mask.is_floating_point() else mask


def _batch_of(tokens: Tensor, cache: _HuggingFaceCache | None) -> Batch:
    rows, width = tokens.shape
    ignored = torch.full_like(tokens, IGNORE_TARGET)
    batch = Batch.of_tokens(tokens, targets=ignored)
    if cache is None:
        return batch
    padding = cache.padding(width)
    segments = batch.segments if padding is None else batch.segments.masked_fill(padding, PADDING_SEGMENT)
    return Batch(
        tokens=tokens, targets=ignored, positions=cache.positions, segments=segments, lengths=((width,),) * rows
    )


AutoConfig.register("lichen", LichenConfig, exist_ok=True)
AutoModelForCausalLM.register(LichenConfig, LichenForCausalLM, exist_ok=True)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
