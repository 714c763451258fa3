"""What an examination of language found: as text, Markdown, JSON and a picture.

``language.json`` has every document's sums and every continuation, and the keys ``bits_per_byte``, ``distinct_1`` to
``distinct_3``, ``repetition``, ``loops`` (of the sampled continuations; both kinds stand under ``continuations``) and ``layers``.

>>> import numpy as np
>>> from lichen.config.evaluation import LanguageEvaluation
>>> from lichen.evaluation.knowledge_report import as_text
>>> from lichen.evaluation.intervals import Score
>>> found = LanguageFound(
...     settings=LanguageEvaluation(), context=64, documents=2, targets=5, bits_per_byte=Score(2.5, 2.4, 2.6, 2),
...     nats=np.array([3.0, 4.0]), bytes=np.array([2, 2]), yardsticks={"xz": 3.1}, writing={}, look=None,
... )
>>> print(as_text(tables(found)))
Bits per byte
  who    bits per byte
  model  2.5 [2.4, 2.6]
  xz     3.1
  2 documents, 4 bytes, 64 tokens read at once
>>> as_data(found)["bits_per_byte"]
{'value': 2.5, 'low': 2.4, 'high': 2.6, 'n': 2}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.core.folders import make_folder, write_file
from lichen.core.logs import escape_control
from lichen.evaluation.knowledge_report import as_markdown
from lichen.evaluation.language import LanguageFound
from lichen.metrics import figures
from lichen.metrics.report import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lichen.evaluation.layers import Layer, Look, States
    from lichen.evaluation.writing import Continuation, Writing

PARTS = ("attention", "feed_forward", "router", "reader")
SHOWN = 3
"""So many continuations of each kind stand in the Markdown file."""


def tables(found: LanguageFound) -> list[Table]:
    """Everything but the texts, as tables of text cells."""
    result = [_bits_table(found)]
    if found.writing:
        result.append(_writing_table(found.writing, found.settings.prompt_tokens))
    if found.look is not None:
        result.append(_layers_table(found.look))
    return result


def as_data(found: LanguageFound, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Plain data; ``about`` the model first. Norms and ranks that do not exist are None."""
    ways = {name: _writing_data(writing) for name, writing in found.writing.items()}
    look = found.look
    return {
        "kind": "language",
        **(about or {}),
        "settings": found.settings.to_data(),
        "context": found.context,
        "documents": found.documents,
        "bytes": int(found.bytes.sum()),
        "targets": found.targets,
        "bits_per_byte": found.bits_per_byte.as_dict(),
        "yardsticks": dict(found.yardsticks),
        **{name: value for name, value in ways.get("sampled", {}).items() if name != "texts"},
        "continuations": ways,
        "layers": [] if look is None else [_layer_data(layer) for layer in look.layers],
        "gradient": None if look is None else _gradient_data(look),
        "per_document": {"nats": found.nats.tolist(), "bytes": found.bytes.tolist()},
    }


def write(found: LanguageFound, folder: Path, title: str, about: Mapping[str, Any] | None = None) -> list[Path]:
    """``language.json``, ``language.md`` and, if layers were looked at, ``language.png`` in ``folder``; their paths."""
    make_folder(folder)
    paths = [folder / "language.json", folder / "language.md"]
    data = json.dumps(as_data(found, about), ensure_ascii=False, indent=1, allow_nan=False)
    write_file(paths[0], data + "\n")
    write_file(paths[1], f"# {title}\n\n{as_markdown(tables(found))}{_samples(found.writing)}")
    if found.look is not None:
        paths.append(folder / "language.png")
        plot(found.look, paths[2], title)
    return paths


def plot(found: Look, output: Path, title: str = "") -> None:
    """By layer: gradient norms on the left, effective ranks and participation ratio on the right."""
    with figures.drawing():
        figure = figures.new_figure(9.0, 3.4)
        left, right = figure.subplots(1, 2)
        _lines(left, "Gradient norm", _norms(found), log=True)
        _lines(right, "Directions in use", _ranks(found))
        figure.suptitle(figures.label(title or "Layers"), fontsize=12)
        figures.save(figure, output)


# --- Tables ---


def _bits_table(found: LanguageFound) -> Table:
    rows = [{"who": "model", "bits per byte": found.bits_per_byte.short()}]
    rows += [{"who": name, "bits per byte": f"{value:.4g}"} for name, value in found.yardsticks.items()]
    note = f"{found.documents:,} documents, {int(found.bytes.sum()):,} bytes, {found.context:,} tokens read at once"
    return Table("Bits per byte", rows, note)


def _writing_table(writing: Mapping[str, Writing], given: int) -> Table:
    measures = {name: _measures(found) for name, found in writing.items()}
    labels = {
        **{f"distinct_{n}": f"distinct-{n}" for n in (1, 2, 3)},
        **{f"pooled_distinct_{n}": f"distinct-{n}, all texts" for n in (1, 2, 3)},
        "repetition": "repeated 4-grams",
        "loops": "end in a loop",
        "ended": "ended by the model",
        "tokens": "tokens",
    }
    rows = [
        {"measure": label, **{way: found[name].short() for way, found in measures.items()}}
        for name, label in labels.items()
    ]
    n = max(len(found.texts) for found in writing.values())
    return Table("Continuations", rows, f"n {n:,}, after the first {given:,} tokens of held-out documents")


def _layers_table(found: Look) -> Table:
    parts = [part for part in PARTS if any(part in layer.gradients.parts for layer in found.layers)]
    rows = [_layer_row(layer, parts) for layer in found.layers]
    outside = ", ".join(f"{place} {_short(norm)}" for place, norm in found.elsewhere.items())
    n = found.layers[0].states.n if found.layers else 0
    note = (
        f"n {n:,} positions of {found.segments:,} texts, their first apart; gradient of {_short(found.loss)} nats per target: "
        f"{_short(found.gradient_norm)} in all; {outside}"
    )
    return Table("Layers", rows, note)


def _layer_row(layer: Layer, parts: list[str]) -> dict[str, Any]:
    states, gradients = layer.states, layer.gradients
    norms = {f"∇ {part.replace('_', '-')}": _short(gradients.parts.get(part, math.nan)) for part in parts}
    return {
        "layer": f"{layer.layer}",
        "kind": layer.kind,
        "effective rank": _short(states.effective_rank),
        "centred": _short(states.effective_rank_centred),
        "participation": _short(states.participation_ratio),
        "cosine intra": _short(states.cosine_intra),
        "inter": _short(states.cosine_inter),
        "norm": _short(states.residual_norm),
        "∇": _short(gradients.total),
        **norms,
        "∇ residual": _short(gradients.residual),
    }


def _short(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"


# --- Data ---


def _measures(found: Writing) -> dict[str, Any]:
    """Every score by its key in the JSON file."""
    return {
        **{f"distinct_{n}": score for n, score in found.distinct.items()},
        **{f"pooled_distinct_{n}": score for n, score in found.pooled.items()},
        "repetition": found.repetition,
        "loops": found.loops,
        "ended": found.ended,
        "tokens": found.tokens,
    }


def _writing_data(found: Writing) -> dict[str, Any]:
    scores = {name: score.as_dict() for name, score in _measures(found).items()}
    texts = [{name: value for name, value in asdict(text).items() if name != "tokens"} for text in found.texts]
    return {**scores, "texts": texts}


def _layer_data(layer: Layer) -> dict[str, Any]:
    return {
        "layer": layer.layer,
        "kind": layer.kind,
        **_states_data(layer.states),
        "gradient_norm": layer.gradients.total,
        "gradient_norm_by_part": dict(layer.gradients.parts),
        "gradient_norm_residual": layer.gradients.residual,
        "position_0": _states_data(layer.first),
    }


def _states_data(states: States) -> dict[str, Any]:
    return {name: None if math.isnan(value) else value for name, value in asdict(states).items()}


def _gradient_data(found: Look) -> dict[str, Any]:
    return {
        "loss": found.loss,
        "targets": found.targets,
        "segments": found.segments,
        "norm": found.gradient_norm,
        "elsewhere": dict(found.elsewhere),
    }


# --- Texts and picture ---


def _samples(writing: Mapping[str, Writing]) -> str:
    """A few continuations beside the true ones; whatever the model wrote stays text."""
    parts = []
    for name, found in writing.items():
        parts.append(f"\n### Texts, {name}\n")
        parts += [_sample(text) for text in found.texts[:SHOWN]]
    return "".join(parts)


def _sample(text: Continuation) -> str:
    said = {"given": text.prompt, "true": text.true, "written": text.written}
    return "".join(f"\n{name}:\n\n{_as_code(words)}\n" for name, words in said.items())


def _as_code(text: str) -> str:
    return "\n".join(f"    {line}" for line in escape_control(text).splitlines() or [""])


def _norms(found: Look) -> dict[str, list[float]]:
    lines = {"layer": [layer.gradients.total for layer in found.layers]}
    for part in PARTS:
        norms = [layer.gradients.parts.get(part, math.nan) for layer in found.layers]
        if not all(map(math.isnan, norms)):
            lines[part.replace("_", "-")] = norms
    return lines


def _ranks(found: Look) -> dict[str, list[float]]:
    return {
        "effective rank": [layer.states.effective_rank for layer in found.layers],
        "centred": [layer.states.effective_rank_centred for layer in found.layers],
        "participation ratio": [layer.states.participation_ratio for layer in found.layers],
    }


def _lines(panel: Axes, title: str, lines: Mapping[str, list[float]], log: bool = False) -> None:
    for number, (name, values) in enumerate(lines.items()):
        color, dashes = figures.style(number)
        panel.plot(range(len(values)), values, color=color, linestyle=dashes, marker="o", markersize=4, label=name)
    if log and any(value > 0 for values in lines.values() for value in values):
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0)
    panel.set_title(title, loc="left")
    panel.set_xlabel("layer")
    panel.set_xticks(range(len(next(iter(lines.values())))))
    panel.legend(fontsize=8)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
