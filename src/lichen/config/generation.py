"""How a model's next token is chosen, and when it stops.

>>> SamplingConfig().max_new_tokens
100
>>> SamplingConfig.from_data({"temperature": -1})
Traceback (most recent call last):
    ...
lichen.config.errors.ConfigError: 1 problem in the configuration:
  temperature = -1: must be greater than or equal to 0
"""

from pydantic import Field, field_validator

from lichen.config.base import Config


class SamplingConfig(Config):
    """Applied in this order: repetition penalty, n-grams, temperature, top-k, top-p."""

    max_new_tokens: int = Field(default=100, ge=1)
    """At most so many tokens are generated; the model's context may end a text earlier."""
    greedy: bool = False
    """Always take the most probable token."""
    temperature: float = Field(default=0.8, ge=0, allow_inf_nan=False)
    """Divides the logits: below 1 makes likely tokens likelier; 0 is greedy."""
    top_k: int = Field(default=0, ge=0)
    """Choose among the k most probable tokens only; 0: all."""
    top_p: float = Field(default=0.95, gt=0, le=1, allow_inf_nan=False)
    """Choose among the fewest most probable tokens whose probabilities reach p; 1: all."""
    repetition_penalty: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Above 1 makes tokens that stand in the prompt or the answer less probable; 1: off."""
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    """No n tokens in a row stand twice in prompt and answer; 0: off."""
    seed: int = Field(default=0, ge=0)
    """The same seed, model and prompt give the same text, alone or in a batch."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer and are not part of it."""

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if "" in stop:
            raise ValueError("an empty stop text would end every answer at once")
        return stop

    @property
    def is_greedy(self) -> bool:
        """Whether no random number is needed."""
        return self.greedy or self.temperature == 0


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
