"""Configuration: typed sections, and one way to fill them.

A section is a frozen pydantic model; a field's help is the docstring below it. Values come from YAML recipes (left to right),
then from ``LICHEN__SECTION__FIELD`` in the environment, then from flags ``--section.field value``. All are merged as plain data
before ONE validation, so that everything wrong is said at once: dotted path, value, where it came from, nearest valid name.
In a tagged union (``kind: …``) a new kind replaces the whole branch, since the other kind's fields mean nothing to it.

>>> class Optim(Config):
...     lr: float = 5e-4
...     '''Highest learning rate.'''
>>> class Recipe(Config):
...     optim: Optim = Optim()
>>> load(Recipe, flags={"optim.lr": "1e-3"}, environment={}).optim.lr
0.001
>>> load(Recipe, flags={"optim.rl": "1"}, environment={})
Traceback (most recent call last):
    ...
lichen.config.errors.ConfigError: 1 problem in the configuration:
  optim.rl = 1 (from --optim.rl): no such setting (nearest: lr; available: lr)
"""

import json
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from lichen.config import yaml12
from lichen.config.errors import ConfigError, nearest

ENVIRONMENT_PREFIX = "LICHEN__"


class Config(BaseModel):
    """A section of the configuration: immutable, strict about types and names."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Groups of settings of which one at most may be given; where sources differ, the later one's choice counts."""

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Validate plain data (lists become tuples, text becomes paths). Raises ConfigError naming every problem."""
        return _validated(cls, _Draft(cls, dict(data)))

    def to_data(self) -> dict[str, Any]:
        """Plain data that ``from_data`` reads back equal."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The same as YAML text."""
        return yaml12.write(self.to_data())


@dataclass
class _Draft:
    """Plain data on its way to validation, with the origin of every leaf and the problems met so far."""

    cls: type[BaseModel]
    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[tuple[str, ...], str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def merge(self, data: Mapping[str, Any], origin: str) -> None:
        """Lay ``data`` over what is there."""
        _drop_rivals(self.cls, self.data, data)
        _merge(self.data, data, (), origin, self.origins)


ConfigType = typing.TypeVar("ConfigType", bound=Config)


def load(
    cls: type[ConfigType],
    recipes: Iterable[Path | str] = (),
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str | list[str]] | None = None,
    base: Mapping[str, Any] | None = None,
) -> ConfigType:
    """Merge ``base`` < ``recipes`` < ``environment`` < ``flags`` and validate the whole once.

    ``flags`` and ``environment`` hold text, read as YAML unless the field takes text itself; ``environment`` is the process's
    own unless given. Raises ConfigError with every problem found.
    """
    draft = _Draft(cls)
    draft.merge(base or {}, "the default")
    for recipe in recipes:
        draft.merge(_read_recipe(Path(recipe)), str(recipe))
    variables = os.environ if environment is None else environment
    named = {name: name[len(ENVIRONMENT_PREFIX) :].lower().split("__") for name in sorted(variables)}
    _lay_texts(draft, [(path, variables[n], n) for n, path in named.items() if n.startswith(ENVIRONMENT_PREFIX)])
    _lay_texts(draft, [(n.replace("-", "_").split("."), text, f"--{n}") for n, text in (flags or {}).items()])
    return _validated(cls, draft)


def field_names(cls: type[BaseModel]) -> tuple[str, ...]:
    """The fields of a section in their order."""
    return tuple(cls.model_fields)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections an annotation may hold: through ``Annotated``, ``Optional`` and unions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [model for part in typing.get_args(annotation) for model in models_in(part)]
    if typing.get_origin(annotation) is typing.Annotated:
        return models_in(typing.get_args(annotation)[0])
    return []


def annotations_at(cls: type[BaseModel], path: tuple[str, ...]) -> list[Any]:
    """Every annotation that the dotted ``path`` may have below ``cls``; empty where there is no such setting."""
    models: list[Any] = [cls]
    for name in path:
        found: list[Any] = []
        for annotation in models:
            for model in models_in(annotation):
                if name in model.model_fields:
                    found.append(model.model_fields[name].annotation)
            for member in members_of(annotation):
                if typing.get_origin(member) is dict:
                    found.append(typing.get_args(member)[1])
                elif typing.get_origin(member) is tuple and name.isdigit():
                    found.append(typing.get_args(member)[0])
        models = found
    return models


def leaves(cls: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting below ``cls`` as (dotted path, its pydantic FieldInfo); of a union, each member's."""
    for name, info in cls.model_fields.items():
        inner = models_in(info.annotation)
        if not inner:
            yield prefix + name, info
        for model in inner:
            yield from leaves(model, f"{prefix}{name}.")


def _read_recipe(path: Path) -> Mapping[str, Any]:
    data = yaml12.read(path)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of sections, not a {type(data).__name__}")
    return data


def _merge(
    into: dict[str, Any],
    data: Mapping[str, Any],
    path: tuple[str, ...],
    origin: str,
    origins: dict[tuple[str, ...], str],
) -> None:
    if "kind" in data and into.get("kind", data["kind"]) != data["kind"]:
        into.clear()
    for key, value in data.items():
        key = str(key)
        here = (*path, key)
        if isinstance(value, Mapping) and value:
            inner = into.get(key)
            if not isinstance(inner, dict):
                inner = into[key] = {}
            _merge(inner, value, here, origin, origins)
        else:
            into[key] = list(value) if isinstance(value, tuple) else value
            origins[here] = origin


def _drop_rivals(cls: type[BaseModel], into: dict[str, Any], data: Mapping[str, Any]) -> None:
    """Where ``data`` chooses one of several exclusive settings, forget what earlier sources chose."""
    for group in getattr(cls, "exclusive", ()):
        if any(data.get(name) is not None for name in group):
            for name in group:
                into.pop(name, None)
    for name, value in data.items():
        inner = into.get(str(name))
        if isinstance(value, Mapping) and isinstance(inner, dict) and str(name) in cls.model_fields:
            for model in models_in(cls.model_fields[str(name)].annotation):
                _drop_rivals(model, inner, value)


def _lay_texts(draft: _Draft, values: Sequence[tuple[list[str], str | list[str], str]]) -> None:
    """Lay (path, text or texts of a list, origin) over the draft, as one source."""
    layers = []
    for path, text, origin in values:
        annotations = annotations_at(draft.cls, tuple(path))
        read = _parse_list if isinstance(text, list) else _parse_text
        try:
            data: Any = read(text, annotations, origin)  # type: ignore[arg-type]
        except ConfigError as error:
            draft.problems.append(str(error))
            continue
        for name in reversed(path):
            data = {name: data}
        layers.append((data, origin))
    for data, _ in layers:
        _drop_rivals(draft.cls, draft.data, data)
    for data, origin in layers:
        _merge(draft.data, data, (), origin, draft.origins)


def _parse_text(text: str, annotations: list[Any], origin: str) -> Any:
    """YAML, unless the setting takes text (then only ``null`` is special, where it is allowed)."""
    members = {member for annotation in annotations for member in members_of(annotation)}
    takes_text = bool(members & {str, Path}) and not members & {int, float, bool}
    if takes_text:
        nothing = type(None) in members and text.strip() in ("null", "~")
        return None if nothing else text
    return yaml12.parse(text, origin)


def _parse_list(texts: list[str], annotations: list[Any], origin: str) -> Any:
    """Each text as one element; a single ``[a, b]`` may give the whole list, where elements are not text themselves."""
    elements = [
        typing.get_args(member)[0]
        for annotation in annotations
        for member in members_of(annotation)
        if typing.get_origin(member) in (tuple, list)
    ]
    values = [_parse_text(text, elements, origin) for text in texts]
    return values[0] if len(values) == 1 and (isinstance(values[0], list) or values[0] is None) else values


def members_of(annotation: Any) -> list[Any]:
    """The alternatives of an annotation, through ``Annotated`` and unions; a ``Literal`` stands for its values' types."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(annotation) for member in members_of(part)]
    if origin is typing.Annotated:
        return members_of(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return list({type(value) for value in typing.get_args(annotation)})
    return [annotation]


def _validated(cls: type[ConfigType], draft: _Draft) -> ConfigType:
    problems = list(draft.problems)
    _fill_kinds(cls, draft.data)
    try:
        text = json.dumps(draft.data, default=_plain, ensure_ascii=False)
        config = cls.model_validate_json(text.encode())
    except ValidationError as error:
        problems += _explain(cls, draft, error)
    except UnicodeEncodeError as error:  # a path whose bytes are no text here
        near = error.object[max(0, error.start - 40) : error.end]
        problems.append(f"…{near!r}: not text in this system's encoding; rename the file, or set PYTHONUTF8=1")
    except TypeError as error:
        problems.append(str(error))
    else:
        if not problems:
            return config
    problems = list(dict.fromkeys(problems))
    title = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the configuration:"
    raise ConfigError("\n  ".join([title, *problems]))


def _fill_kinds(cls: type[BaseModel], data: dict[str, Any]) -> None:
    """A branch of a tagged union that names no kind is of the kind it has by default."""
    for name, info in cls.model_fields.items():
        inner = data.get(name)
        if not isinstance(inner, dict):
            continue
        models = models_in(info.annotation)
        kind = getattr(info.get_default(call_default_factory=False), "kind", None)
        if len(models) > 1 and kind is not None:
            data[name] = {"kind": kind, **inner}
        elif len(models) == 1:
            _fill_kinds(models[0], inner)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is not plain data: write text, numbers, booleans, lists or mappings")


def _explain(cls: type[BaseModel], draft: _Draft, error: ValidationError) -> list[str]:
    """One line per place: pydantic names every member of a union that did not fit, a person cares for the place."""
    places: dict[tuple[str, ...], list[Any]] = {}
    for detail in error.errors(include_url=False):
        places.setdefault(_place(detail["loc"], draft.data), []).append(detail)
    return [_problem(cls, draft, place, details) for place, details in places.items()]


def _place(location: tuple[Any, ...], data: Any) -> tuple[str, ...]:
    """``location`` without pydantic's union tags: what it says beside the data is dropped."""
    place: list[str] = []
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        ):
            data = data[part]
        elif not (last and isinstance(data, dict)) or part == data.get("kind"):
            continue
        place.append(str(part))
    return tuple(place)


def _problem(cls: type[BaseModel], draft: _Draft, place: tuple[str, ...], details: list[Any]) -> str:
    value = _value_at(draft.data, place)
    origin = _origin(draft.origins, place)
    kinds = {detail["type"] for detail in details}
    path = ".".join(place) or "the recipe"
    if "missing" in kinds and value is _NOTHING:
        return f"{path}: must be given"
    shown = "" if value is _NOTHING else f" = {_shorten(value)}"
    head = f"{path}{shown}{f' (from {origin})' if origin else ''}"
    if "extra_forbidden" in kinds:
        return f"{head}: no such setting{nearest(place[-1], _names_at(cls, draft.data, place[:-1]))}"
    if "union_tag_invalid" in kinds:
        context = details[0]["ctx"]
        names = [name.strip(" '") for name in context["expected_tags"].split(",")]
        return f"{head}: no such kind {context['tag']!r}{nearest(str(context['tag']), names)}"
    if "union_tag_not_found" in kinds:
        models = [model for annotation in annotations_at(cls, place) for model in models_in(annotation)]
        kinds = _literals(model.model_fields["kind"].annotation for model in models if "kind" in model.model_fields)
        return f"{head}: needs a 'kind'{nearest('', kinds)}"
    words = dict.fromkeys(_words(detail) for detail in details)
    hint = ""
    if "literal_error" in kinds and isinstance(value, str):
        hint = nearest(value, _literals(annotations_at(cls, place)))
        words = dict.fromkeys(["is not among the choices"])
    return f"{head}: {' or '.join(words)}{hint}"


_NOTHING = object()


def _value_at(data: Any, place: tuple[str, ...]) -> Any:
    for part in place:
        if isinstance(data, dict) and part in data:
            data = data[part]
        elif isinstance(data, list) and part.isdigit() and int(part) < len(data):
            data = data[int(part)]
        else:
            return _NOTHING
    return data


def _origin(origins: Mapping[tuple[str, ...], str], place: tuple[str, ...]) -> str:
    """Where the value at ``place``, or a part of it or the whole it belongs to, was last set."""
    for end in range(len(place), 0, -1):
        if place[:end] in origins:
            return origins[place[:end]]
    inner = [origin for path, origin in origins.items() if path[: len(place)] == place]
    return inner[-1] if inner and place else ""


def _names_at(cls: type[BaseModel], data: Any, place: tuple[str, ...]) -> list[str]:
    """The settings there are at ``place``; of a tagged union, those of the kind that was chosen."""
    models = [model for annotation in annotations_at(cls, place) for model in models_in(annotation)] if place else [cls]
    section = _value_at(data, place)
    kind = section.get("kind") if isinstance(section, dict) else None
    chosen = [
        model for model in models if kind in _literals([getattr(model.model_fields.get("kind"), "annotation", None)])
    ]
    return [name for model in chosen or models for name in model.model_fields]


def _literals(annotations: Iterable[Any]) -> list[str]:
    found: list[str] = []
    for annotation in annotations:
        if typing.get_origin(annotation) is typing.Literal:
            found += [str(value) for value in typing.get_args(annotation)]
        else:
            found += _literals(part for part in typing.get_args(annotation))
    return found


def _words(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return message.replace("Input should be", "must be").replace("Input", "it")


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "…"


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
