"""A conversation and the model's turns in it.

What was said is kept as messages and rendered anew for every turn, with the same template that made the training data;
what a person types is only ever text in it. When a conversation outgrows the model's context, its oldest exchanges are
left out of the prompt (never the system message, never the last question), and whoever shows the answer can say so.

>>> conversation = Conversation(system="Be brief.")
>>> conversation.say("hi")
>>> [message["role"] for message in conversation.messages]
['system', 'user']
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from lichen.config.errors import UsageError
from lichen.config.generation import SamplingConfig
from lichen.dataset.template import encode_chat
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.completion import stream
from lichen.inference.engine import Engine


class Conversation:
    """Messages in ChatML's roles; ``system`` may be empty."""

    def __init__(self, system: str = ""):
        self.system = system
        self.turns: list[dict[str, Any]] = []

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All messages, the system's first."""
        return [*self._opening(), *self.turns]

    def say(self, text: str) -> None:
        """The person's turn."""
        self.turns.append({"role": "user", "content": text})

    def reply(self, text: str) -> None:
        """The model's turn."""
        self.turns.append({"role": "assistant", "content": text})

    def reset(self) -> None:
        """Forget everything but the system message."""
        self.turns.clear()

    def fit(self, tokenizer: Tokenizer, context_length: int, room: int) -> tuple[list[int], int]:
        """Prompt ids with at least ``room`` tokens left in the context, and how many messages were left out for it.

        Raises UsageError when the system message and the last question alone are too long.
        """
        most = context_length - room
        starts = [place for place, message in enumerate(self.turns) if message["role"] == "user"]
        for start in starts:
            ids, _ = encode_chat(tokenizer, [*self._opening(), *self.turns[start:]], add_generation_prompt=True)
            if len(ids) <= most:
                return ids, start
        if not starts:
            raise UsageError("nothing was said yet")
        raise UsageError(
            f"the message and the system message have {len(ids)} tokens, the model's context of {context_length} leaves "
            f"{most} for them: shorten the message, or allow fewer new tokens"
        )

    def _opening(self) -> list[dict[str, Any]]:
        return [{"role": "system", "content": self.system}] if self.system else []


class Chat:
    """Answers conversations with one model."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, config: SamplingConfig):
        self.engine = engine
        self.tokenizer = tokenizer
        self.config = config
        self.left_out = 0
        """How many messages did not fit into the last prompt."""

    def answer(self, conversation: Conversation) -> Generator[str, None, None]:
        """The answer to what was said last, as it comes. What was given out is added to the conversation, also where
        the reader stops before the end.
        """
        room = min(self.config.max_new_tokens, self.engine.context_length // 4)
        ids, self.left_out = conversation.fit(self.tokenizer, self.engine.context_length, room)
        seed = self.config.seed + len(conversation.turns)  # another draw for every turn
        said: list[str] = []
        try:
            for new in stream(self.engine, self.tokenizer, [ids], self.config, [seed]):
                if new.text:
                    said.append(new.text)
                    yield new.text
        finally:
            conversation.reply("".join(said))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
