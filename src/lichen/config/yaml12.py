"""YAML as its version 1.2 means it, read safely.

PyYAML follows version 1.1, where ``1e-3`` is a string, ``no`` is false and ``12:30`` is a number in base sixty. Here plain
scalars follow the core schema of YAML 1.2; duplicate keys, unknown tags and alias bombs are refused with their line.

>>> parse("lr: 1e-3\\nname: no\\nwhen: 12:30\\nsteps: 1_000\\nlimit: null")
{'lr': 0.001, 'name': 'no', 'when': '12:30', 'steps': '1_000', 'limit': None}
>>> parse("a: 1\\na: 2", "x.yaml")
Traceback (most recent call last):
    ...
lichen.config.errors.ConfigError: x.yaml line 2: the key 'a' stands twice; keep one
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from lichen.config.errors import ConfigError, UsageError

MAX_NODES = 100_000
"""A document may expand, aliases followed, to this many nodes; a recipe has a few hundred."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the core schema of YAML 1.2; resolvers are its own, so PyYAML itself stays as it was."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


def _resolver(kind: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(rf"^(?:{pattern})$"), list(first))


_resolver("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_resolver("null", "~|null|Null|NULL|", "~nN")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^$"), [""])
_resolver("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789")
_resolver(
    "float",
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "-+0123456789.",
)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool | None):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain scalar", key_node.start_mark)
        if key in seen:
            problem = f"the key {key!r} stands twice; keep one"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        seen.add(key)
    return {
        loader.construct_object(key, deep=True): loader.construct_object(value, deep=True) for key, value in node.value
    }


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _expanded_size(node: yaml.Node | None) -> int:
    """Nodes of the document with every alias written out; an alias inside itself counts as too many."""
    known: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in open_nodes:
            return MAX_NODES + 1
        if id(node) not in known:
            open_nodes.add(id(node))
            children = (
                [part for pair in node.value for part in pair]
                if isinstance(node, yaml.MappingNode)
                else node.value
                if isinstance(node, yaml.SequenceNode)
                else []
            )
            known[id(node)] = 1 + sum(size(child) for child in children)
            open_nodes.discard(id(node))
        return known[id(node)]

    return 0 if node is None else size(node)


def parse(text: str, name: str = "the text") -> Any:
    """The plain data ``text`` holds; ``name`` stands in error messages. Raises ConfigError with the line."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if _expanded_size(node) > MAX_NODES:
            raise ConfigError(f"{name}: its aliases expand to more than {MAX_NODES} nodes; write it out plainly")
        return None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{name}{line}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply; write it flatter") from None
    finally:
        loader.dispose()


def read(path: Path) -> Any:
    """The plain data in the file at ``path``."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; name a readable YAML file") from None


def write(data: Any) -> str:
    """``data`` as YAML text that ``parse`` reads back equal."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what YAML 1.1 or 1.2 would read as another type."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _write_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    plain = dumper.resolve(yaml.ScalarNode, text, (True, False)) == "tag:yaml.org,2002:str"
    try:
        plain = plain and parse(text) == text
    except ConfigError:
        plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain or "\n" in text else "'")


_Dumper.add_representer(str, _write_text)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
