"""``lichen chat``: turns, commands, and Ctrl-C that stops the answer before it stops the program."""

import io

import pytest

from lichen.config.errors import UsageError
from lichen.config.model import ModelConfig
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference import chat as chat_module
from lichen.inference.chat import Conversation
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.weights import write_model
from lichen.scripts import chat as verb

SETTINGS = ["--device", "cpu", "--max-new-tokens", "6"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = Tokenizer.train(["the cat sat on the mat", "a hat is not a cat"] * 8, vocab_size=340)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        max_position_embeddings=128,
    )
    folder = tmp_path_factory.mktemp("model")
    write_model(initialise(LanguageModel(config), seed=0), folder)
    tokenizer.save(folder)
    return str(folder)


@pytest.fixture
def conversations(monkeypatch):
    """Every conversation the verb begins."""
    found = []

    class Kept(Conversation):
        def __init__(self, system: str = ""):
            super().__init__(system)
            found.append(self)

    monkeypatch.setattr(chat_module, "Conversation", Kept)
    return found


class Keyboard(io.StringIO):
    def isatty(self) -> bool:
        return True


def type_in(monkeypatch, *lines):
    """Lines as a person at a terminal types them; an exception is raised in its place."""
    rest = list(lines)

    def read(prompt=""):
        line = rest.pop(0) if rest else EOFError()
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("sys.stdin", Keyboard())
    monkeypatch.setattr("builtins.input", read)
    return rest


def test_messages_are_turns_of_one_conversation(folder, capsys, conversations):
    assert verb.run([folder, "--message", "the cat", "--message", "a hat", "--system", "mat", *SETTINGS]) == 0
    roles = [message["role"] for message in conversations[0].messages]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    answers = [turn["content"] for turn in conversations[0].turns if turn["role"] == "assistant"]
    assert capsys.readouterr().out == "".join(f"{answer}\n" for answer in answers)


def test_the_same_words_typed_or_given_are_answered_alike(folder, capsys, monkeypatch):
    verb.run([folder, "--message", "the cat", *SETTINGS])
    given = capsys.readouterr().out
    type_in(monkeypatch, "the cat", "/exit", "never read")
    verb.run([folder, *SETTINGS])
    assert given in capsys.readouterr().out


def test_commands(folder, conversations, monkeypatch, capsys):
    rest = type_in(
        monkeypatch, "the cat", "/reset", "a hat", "/system speak", "", "/help", "/usr is text", "/exit", "x"
    )
    verb.run([folder, *SETTINGS])
    [conversation] = conversations
    assert rest == ["x"]
    assert conversation.system == "speak" and conversation.turns[0]["content"] == "/usr is text"
    assert len(conversation.turns) == 2
    assert "/reset" in capsys.readouterr().out


def test_the_first_interrupt_stops_the_answer_and_the_second_leaves(folder, conversations, monkeypatch, capsys):
    rest = type_in(monkeypatch, "the cat", "a hat", KeyboardInterrupt(), "the mat", KeyboardInterrupt(), "not read")
    writes = []

    def interrupted_write(text, file=None):
        writes.append(text)
        if len(conversations[0].turns) in (1, 5):  # in the middle of the first answer and of the third
            raise KeyboardInterrupt

    monkeypatch.setattr("lichen.inference.terminal.write", interrupted_write)
    assert verb.run([folder, *SETTINGS]) == 0
    assert rest == ["not read"]
    roles = [turn["role"] for turn in conversations[0].turns]
    assert roles == ["user", "assistant"] * 3, "an answer that was stopped is kept"
    assert conversations[0].turns[1]["content"] == writes[0]
    assert capsys.readouterr().err.count("Ctrl-C again leaves") == 3


def test_a_message_that_is_too_long_is_said_and_the_talk_goes_on(folder, conversations, monkeypatch, capsys):
    type_in(monkeypatch, "the cat " * 200, "a hat")
    verb.run([folder, *SETTINGS])
    assert "shorten the message" in capsys.readouterr().err
    assert conversations[0].turns[0]["content"] == "a hat"


def test_without_a_terminal_lines_are_read_and_a_fault_ends_it(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\n"))
    assert verb.run([folder, *SETTINGS]) == 0
    assert "> " not in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat " * 200))
    with pytest.raises(UsageError):
        verb.run([folder, *SETTINGS])


def test_messages_left_out_are_mentioned(folder, capsys):
    messages = [word for _ in range(12) for word in ("--message", "the cat sat on the mat")]
    verb.run([folder, *messages, *SETTINGS])
    assert "no longer fit" in capsys.readouterr().err


def test_a_wrong_request_is_said_in_a_line(folder):
    for argv in ([], [folder, "x"], [folder, "--mesage", "x"], [folder, "--message", "x", "--top-p", "nan"]):
        with pytest.raises(UsageError):
            verb.run(argv)


@pytest.mark.nightly
def test_at_a_real_terminal_control_c_stops_the_answer_then_the_program(folder):
    """The same with a real terminal, a real process and real signals."""
    import os
    import pty
    import select
    import subprocess
    import sys
    import time

    terminal, other_end = pty.openpty()
    argv = [sys.executable, "-m", "lichen", "chat", folder, "--device", "cpu", "--max-new-tokens", "100"]
    process = subprocess.Popen(argv, stdin=other_end, stdout=other_end, stderr=other_end, start_new_session=True)
    os.close(other_end)
    seen = ""

    def wait_for(words: str) -> None:
        nonlocal seen
        end = time.monotonic() + 60
        while words not in seen:
            assert time.monotonic() < end, seen
            if select.select([terminal], [], [], 0.2)[0]:
                seen += os.read(terminal, 65536).decode("utf-8", "replace")
        seen = seen.partition(words)[2]

    try:
        wait_for("> ")
        os.write(terminal, b"the cat\n")
        wait_for("> ")
        time.sleep(1)  # readline prints its prompt a moment before it waits for keys and signals
        process.send_signal(2)
        wait_for("Ctrl-C again leaves")
        wait_for("> ")
        time.sleep(1)
        process.send_signal(2)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
