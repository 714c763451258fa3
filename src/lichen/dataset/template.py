"""Conversations as tokens: ChatML, rendered to pieces that are either a control token or text.

A template that renders to one string cannot tell its own ``<|im_end|>`` from one that somebody typed. Here a renderer
yields pieces; control pieces become ids by name, text pieces are encoded with control tokens off, and what the model
shall learn is marked on the piece: the loss mask is built, not searched for. ``CHAT_TEMPLATE`` is the same layout in
Jinja for Hugging Face tools; for text without control literals both give the same ids.

Roles are ``system``, ``user``, ``assistant`` and ``tool``. ``content`` is text or a list of ``{"type": "text", "text"}``
and ``{"type": "image"}``. An assistant's message may carry ``thinking`` (or ``reasoning_content``) and ``tool_calls``
(``{"name", "arguments"}``, or OpenAI's form with ``function`` around it). Learnt are an assistant's words and the token
that ends them. Their outer white space is cut off, so that they start with the token a generation starts with.

>>> for piece in render([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]):
...     print(piece.control, piece.trained, repr(piece.value))
True False '<|im_start|>'
False False 'user\\nhi'
True False '<|im_end|>'
False False '\\n'
True False '<|im_start|>'
False False 'assistant\\n'
False True 'ho'
True True '<|im_end|>'
False False '\\n'
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lichen.config.errors import LichenError, nearest

if TYPE_CHECKING:
    from lichen.dataset.tokenizer import Tokenizer

MESSAGE_START, MESSAGE_END, IMAGE = "<|im_start|>", "<|im_end|>", "<image>"
ROLES = ("system", "user", "assistant", "tool")
TOOLS_INTRODUCTION = (
    "You may call these tools. To call one, write a JSON object with its name and arguments between tool call marks."
)

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Piece:
    """A control token by name, or text; ``trained`` says whether its tokens are targets."""

    value: str
    control: bool = False
    trained: bool = False


def render(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), add_generation_prompt: bool = False
) -> list[Piece]:
    """The pieces of a conversation; neighbouring texts of one kind are one piece.

    Raises ``LichenError`` that names the message, counted from 0, where a role, field or type is wrong.
    """
    pieces: list[Piece] = []
    messages = list(messages)
    if tools and not (messages and _role(messages[0], 0) == "system"):
        messages.insert(0, {"role": "system", "content": ""})
    for number, message in enumerate(messages):
        role = _role(message, number)
        pieces.append(Piece(MESSAGE_START, control=True))
        if role == "assistant":
            pieces += [Piece("assistant\n"), *_assistant(message, number), Piece(MESSAGE_END, True, True)]
        else:
            tools_here = tools if number == 0 else ()
            pieces += [Piece(f"{role}\n"), *_spoken(message, role, number, tools_here), Piece(MESSAGE_END, True)]
        pieces.append(Piece("\n"))
    if add_generation_prompt:
        pieces += [Piece(MESSAGE_START, control=True), Piece("assistant\n")]
    return _joined(pieces)


def encode_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    add_generation_prompt: bool = False,
    tools: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[int], list[bool]]:
    """The ids of a conversation and, of equal length, which of them are to be learnt.

    Raises ``LichenError`` where nothing would be learnt (no assistant's message) and it is no prompt either, and where
    the tokenizer lacks ChatML's control tokens.
    """
    ids: list[int] = list(tokenizer.document_prefix)
    mask = [False] * len(ids)
    for piece in render(messages, tools, add_generation_prompt):
        new = encode_piece(tokenizer, piece)
        ids += new
        mask += [piece.trained] * len(new)
    if not add_generation_prompt and not any(mask):
        raise LichenError("the conversation has nothing to learn from: no message of the role assistant; leave it out")
    return ids, mask


def encode_piece(tokenizer: Tokenizer, piece: Piece) -> list[int]:
    """A control piece by its id, text as text. Marks that a foreign tokenizer lacks are written out as text."""
    if not piece.control:
        return tokenizer.encode(piece.value)
    if piece.value in tokenizer.control or piece.value in (MESSAGE_START, MESSAGE_END, IMAGE):
        return [tokenizer.control_id(piece.value)]
    return tokenizer.encode(piece.value)


def _role(message: Message, number: int) -> str:
    if not isinstance(message, Mapping):
        raise LichenError(f"message {number}: a mapping with role and content is expected, not {message!r:.60}")
    role = message.get("role")
    if role not in ROLES:
        raise LichenError(f"message {number}: no such role {role!r}{nearest(str(role), ROLES)}")
    return str(role)


def _spoken(message: Message, role: str, number: int, tools: Sequence[Mapping[str, Any]]) -> Iterator[Piece]:
    """The body of a message that is read, not learnt."""
    if role == "tool":
        yield from (Piece("<tool_response>", control=True), Piece("\n"))
        yield from _content(message, number)
        yield from (Piece("\n"), Piece("</tool_response>", control=True))
        return
    content = list(_content(message, number))
    yield from content
    if tools:
        listed = "".join(f"\n{_json(tool)}" for tool in tools)
        yield Piece(("\n\n" if content else "") + TOOLS_INTRODUCTION + "\n" + listed)


def _assistant(message: Message, number: int) -> Iterator[Piece]:
    """The body of a message that is learnt."""
    thinking = message.get("thinking") or message.get("reasoning_content") or ""
    content = message.get("content") or ""
    for name, value in (("thinking", thinking), ("content", content)):
        if not isinstance(value, str):
            raise LichenError(f"message {number}: {name} of an assistant must be text, not {type(value).__name__}")
    if thinking.strip():
        yield Piece("<think>", True, True)
        yield Piece(f"\n{thinking.strip()}\n", trained=True)
        yield Piece("</think>", True, True)
        yield Piece("\n\n", trained=True)
    if content.strip():
        yield Piece(content.strip(), trained=True)
    for position, call in enumerate(message.get("tool_calls") or ()):
        if position or content.strip():
            yield Piece("\n", trained=True)
        yield Piece("<tool_call>", True, True)
        yield Piece(f"\n{_call(call, number)}\n", trained=True)
        yield Piece("</tool_call>", True, True)


def _content(message: Message, number: int) -> Iterator[Piece]:
    content = message.get("content")
    if isinstance(content, str):
        if content:
            yield Piece(content)
        return
    if not isinstance(content, (list, tuple)):
        raise LichenError(f"message {number}: content must be text or a list of parts, not {type(content).__name__}")
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            yield Piece(part["text"])
        elif kind == "image":
            yield from (Piece("<|vision_start|>", True), Piece(IMAGE, True), Piece("<|vision_end|>", True))
        else:
            raise LichenError(f"message {number}: a part must be a text with text or an image, not {part!r:.60}")


def _call(call: Any, number: int) -> str:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or "arguments" not in function:
        raise LichenError(f"message {number}: a tool call needs name and arguments, not {call!r:.60}")
    arguments = function["arguments"]
    written = arguments if isinstance(arguments, str) else _json(arguments)
    return f'{{"name": {_json(function["name"])}, "arguments": {written}}}'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbouring texts of one kind as one piece, since a tokenizer may join what stands together."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last and not last.control and not piece.control and last.trained == piece.trained:
            joined[-1] = Piece(last.value + piece.value, trained=piece.trained)
        else:
            joined.append(piece)
    return joined


CHAT_TEMPLATE = """\
{%- macro body(content) -%}
{%- if content is string -%}{{ content }}
{%- else -%}
{%- for part in content -%}
{%- if part.type == 'image' -%}{{ '<|vision_start|><image><|vision_end|>' }}{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- macro offered(tools) -%}
{{ 'INTRODUCTION\\n' }}{%- for tool in tools -%}{{ '\\n' + tool | tojson }}{%- endfor -%}
{%- endmacro -%}
{%- if tools and messages[0].role != 'system' -%}
{{ '<|im_start|>system\\n' + offered(tools) + '<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{%- set thinking = (message.thinking or message.reasoning_content or '') | trim -%}
{%- set content = (message.content or '') | trim -%}
{{ '<|im_start|>assistant\\n' }}
{%- if thinking -%}{{ '<think>\\n' + thinking + '\\n</think>\\n\\n' }}{%- endif -%}
{{ content }}
{%- for call in message.tool_calls or [] -%}
{%- set function = call.function or call -%}
{{ '\\n' if content or not loop.first else '' }}
{{- '<tool_call>\\n{"name": ' + function.name | tojson + ', "arguments": ' -}}
{{- (function.arguments if function.arguments is string else function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>\\n' }}
{%- elif message.role == 'tool' -%}
{{ '<|im_start|>tool\\n<tool_response>\\n' + body(message.content) + '\\n</tool_response><|im_end|>\\n' }}
{%- else -%}
{{ '<|im_start|>' + message.role + '\\n' + body(message.content) }}
{%- if loop.first and tools and message.role == 'system' -%}
{{ ('\\n\\n' if message.content else '') + offered(tools) }}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
""".replace("INTRODUCTION", TOOLS_INTRODUCTION)
"""``render`` in Jinja, for tools that read Hugging Face folders; never used to make training data."""


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
