"""``lichen generate RUN --prompt …``: continue texts.

One prompt is streamed; several are computed together and printed one after the other. The same seed gives the same
text, whatever else is asked for in the same call.

>>> unescape(r"\\n\\n###")
'\\n\\n###'
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lichen.config import flags
from lichen.config.base import Config, load
from lichen.config.errors import LichenError, UsageError
from lichen.config.generation import SamplingConfig
from lichen.scripts.command_line import run_module

if TYPE_CHECKING:
    from lichen.dataset.tokenizer import Tokenizer
    from lichen.inference.engine import Engine

SUMMARY = "continue prompts with a trained model"
LINE_END, TAB = "\\n", "\\t"


class GenerateCommand(Config):
    """Continue prompts with a trained model: lichen generate RUN --prompt "Once upon a time"."""

    prompt: tuple[str, ...] = ()
    """A text to continue; give the flag several times for several."""
    prompt_file: tuple[Path, ...] = ()
    """A file whose whole text is continued (a line end at its end left out); - is standard input."""
    samples: int = Field(default=1, ge=1)
    """How many answers to each prompt; the seed counts up from one to the next."""
    as_json: bool = False
    """Print one JSON object per answer: prompt, text, tokens, finish, seed. Short: --json."""
    batch: int = Field(default=16, ge=1)
    """How many answers are computed together."""
    device: str | None = None
    """cuda, mps or cpu; the best there is unless given."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """The precision of weights and cache."""
    sampling: SamplingConfig = SamplingConfig()
    """How the next token is chosen, and when to stop; in --stop, \\n and \\t stand for line end and tab."""


def run(argv: list[str]) -> int:
    """Continue the prompts; 0."""
    arguments = flags.parse(argv, GenerateCommand, "lichen generate", {"json": "as_json"})
    command = load(GenerateCommand, flags=arguments.settings)
    spec = only_model(arguments.positionals, "generate")
    prompts = read_prompts(command)

    from lichen.inference import loading
    from lichen.inference.engine import Engine

    config = command.sampling.model_copy(update={"stop": tuple(unescape(stop) for stop in command.sampling.stop)})
    model, tokenizer = loading.load(spec, command.device, command.dtype)
    engine = Engine(model, tokenizer.stop_ids)
    if len(prompts) == 1 and command.samples == 1 and not command.as_json:
        _stream(engine, tokenizer, prompts[0], config)
    else:
        _answer_all(engine, tokenizer, prompts, config, command)
    return 0


def only_model(positionals: tuple[str, ...], verb: str) -> str:
    """The one positional there must be. Raises UsageError otherwise."""
    if len(positionals) != 1:
        given = f"not {len(positionals)} ({' '.join(positionals)})" if positionals else "none is given"
        raise UsageError(
            f"lichen {verb} takes one run or checkpoint, {given}; for example: lichen {verb} runs/NAME@best"
        )
    return positionals[0]


def read_prompts(command: GenerateCommand) -> list[str]:
    """The texts to continue, those of flags before those of files."""
    prompts = list(command.prompt)
    for path in command.prompt_file:
        if str(path) == "-":
            text = sys.stdin.read()
        else:
            flags.existing_files([str(path)], "prompt file")
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise LichenError(f"{path}: can not be read as UTF-8 text ({error}); convert the file") from None
        prompts.append(text.removesuffix("\n"))
    if not prompts:
        raise UsageError('nothing to continue: give --prompt "TEXT" or --prompt-file FILE')
    return prompts


def unescape(text: str) -> str:
    """A shell gives a backslash and an n where a line end is meant."""
    return text.replace(LINE_END, "\n").replace(TAB, "\t")


def _stream(engine: "Engine", tokenizer: "Tokenizer", prompt: str, config: SamplingConfig) -> None:
    from lichen.inference.completion import encode_prompt, stream
    from lichen.inference.terminal import write

    answer = stream(engine, tokenizer, [encode_prompt(tokenizer, prompt)], config)
    write(prompt)
    for new in answer:
        write(new.text)
    write("\n")


def _answer_all(
    engine: "Engine", tokenizer: "Tokenizer", prompts: list[str], config: SamplingConfig, command: GenerateCommand
) -> None:
    from lichen.inference.completion import complete
    from lichen.inference.terminal import write

    asked = [(prompt, config.seed + sample) for prompt in prompts for sample in range(command.samples)]
    for start in range(0, len(asked), command.batch):
        part = asked[start : start + command.batch]
        answers = complete(engine, tokenizer, [prompt for prompt, _ in part], config, [seed for _, seed in part])
        for number, ((prompt, seed), answer) in enumerate(zip(part, answers, strict=True), start=start + 1):
            if command.as_json:
                row = {"prompt": prompt, "text": answer.text, "tokens": answer.tokens, "finish": answer.finish}
                print(json.dumps({**row, "seed": seed}), flush=True)
            else:
                write(f"--- {number} of {len(asked)}, seed {seed}\n{prompt}{answer.text}\n")


if __name__ == "__main__":
    run_module(run, __file__)
