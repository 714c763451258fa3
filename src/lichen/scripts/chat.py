"""``lichen chat RUN``: talk with a model in the terminal.

The answer appears as it is made. ``/reset`` forgets the conversation, ``/system TEXT`` sets the system message and
begins anew, ``/exit`` (or the end of the input) leaves. Ctrl-C stops an answer; a second one leaves. ``--message`` asks
without a dialogue, several times for several turns. What is typed is text, whatever it looks like.

>>> is_command("/reset"), is_command("/usr/bin is a folder")
(True, False)
"""

import contextlib
import sys
from typing import TYPE_CHECKING, Literal

from lichen.config import flags
from lichen.config.base import Config, load
from lichen.config.generation import SamplingConfig
from lichen.scripts.command_line import run_module
from lichen.scripts.generate import only_model, unescape

if TYPE_CHECKING:
    from lichen.inference.chat import Chat, Conversation

SUMMARY = "talk with a trained model in the terminal"
COMMANDS = {
    "/reset": "forget the conversation",
    "/system": "TEXT: set the system message, and begin anew",
    "/help": "this list",
    "/exit": "leave",
}
DEFAULTS = {"sampling": {"max_new_tokens": 300}}


class ChatCommand(Config):
    """Talk with a trained model: lichen chat RUN."""

    message: tuple[str, ...] = ()
    """Ask this and leave; give the flag several times for several turns."""
    system: str = ""
    """The system message."""
    device: str | None = None
    """cuda, mps or cpu; the best there is unless given."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """The precision of weights and cache."""
    sampling: SamplingConfig = SamplingConfig(max_new_tokens=300)
    """How the next token is chosen, and when to stop."""


def run(argv: list[str]) -> int:
    """Talk; 0."""
    arguments = flags.parse(argv, ChatCommand, "lichen chat")
    command = load(ChatCommand, flags=arguments.settings, base=DEFAULTS)
    spec = only_model(arguments.positionals, "chat")

    from lichen.inference import loading
    from lichen.inference.chat import Chat, Conversation
    from lichen.inference.engine import Engine

    config = command.sampling.model_copy(update={"stop": tuple(unescape(stop) for stop in command.sampling.stop)})
    model, tokenizer = loading.load(spec, command.device, command.dtype)
    chat = Chat(Engine(model, tokenizer.stop_ids), tokenizer, config)
    conversation = Conversation(command.system)
    if command.message:
        for message in command.message:
            ask(chat, conversation, message)
    else:
        talk(chat, conversation)
    return 0


def ask(chat: "Chat", conversation: "Conversation", message: str) -> None:
    """One turn: the message goes in, the answer is shown as it comes."""
    from lichen.inference.terminal import write

    conversation.say(message)
    with contextlib.closing(chat.answer(conversation)) as answer:  # also where Ctrl-C ends it: what was said is kept
        for text in answer:
            write(text)
    write("\n")
    if chat.left_out:
        print(f"(the first {chat.left_out} messages no longer fit into the model's context)", file=sys.stderr)


def talk(chat: "Chat", conversation: "Conversation") -> None:
    """Read and answer until the person leaves."""
    from lichen.config.errors import LichenError
    from lichen.inference.terminal import printable

    interactive = sys.stdin.isatty()
    if interactive:
        _enable_line_editing()
        print("/help lists the commands; Ctrl-C stops an answer, a second one leaves.")
    interrupted = False
    while True:
        try:
            line = input("> " if interactive else "").strip()
            interrupted = False
            if line and not is_command(line):
                ask(chat, conversation, line)
            elif line and not obey(line, conversation):
                return
        except EOFError:
            return
        except KeyboardInterrupt:
            if interrupted:
                return
            interrupted = True
            print("\n(stopped; Ctrl-C again leaves)", file=sys.stderr)
        except LichenError as error:
            conversation.turns = conversation.turns[:-1] if _unanswered(conversation) else conversation.turns
            print(printable(f"error: {error}"), file=sys.stderr)
            if not interactive:
                raise


def is_command(line: str) -> bool:
    """Whether the first word is one of ours; text that merely begins with a slash is text."""
    return line.split(maxsplit=1)[0] in COMMANDS


def obey(line: str, conversation: "Conversation") -> bool:
    """Do what a command says; False to leave."""
    word, _, rest = line.partition(" ")
    if word == "/exit":
        return False
    if word == "/help":
        print("\n".join(f"{name} {meaning}" for name, meaning in COMMANDS.items()))
        return True
    if word == "/system":
        conversation.system = rest.strip()
    conversation.reset()
    print("(a new conversation)", file=sys.stderr)
    return True


def _unanswered(conversation: "Conversation") -> bool:
    return bool(conversation.turns) and conversation.turns[-1]["role"] == "user"


def _enable_line_editing() -> None:
    """Arrow keys and history, where Python was built with them."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401


if __name__ == "__main__":
    run_module(run, __file__)
