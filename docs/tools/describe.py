"""Markdown about code: what an annotation, a default and a docstring say to a reader.

Nothing here depends on the width of a terminal, the version of Python or the place of a file.
"""

import dataclasses
import enum
import inspect
import re
import types
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path, PurePath
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from docstring_parser import parse

PLAIN = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    Path: "path",
    timedelta: "time",
    Any: "any value",
}
MANY = (list, set, frozenset, Iterable, Sequence)
REQUIRED = "required"


@dataclasses.dataclass
class Part:
    """One parameter or field.

    Args:
        name: as it is typed.
        kind: its type in words.
        default: as YAML writes it; `REQUIRED` without one.
        meaning: from the docstring; empty if it says nothing.
    """

    name: str
    kind: str
    default: str
    meaning: str


def kind_of(annotation: Any, links: dict[type, str] | None = None) -> str:
    """Returns an annotation in words.

    Args:
        annotation: a type, a `Literal`, a union or a container of them.
        links: dataclass -> address of its section.
    """
    links = links or {}
    if annotation in links:
        return f"[{annotation.__name__}]({links[annotation]})"
    if annotation in PLAIN:
        return PLAIN[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _listed(_words(annotation, links))
    if origin in (Union, types.UnionType):
        return _listed(list(dict.fromkeys(word for part in inner for word in _words(part, links))))
    if origin in (*MANY, tuple) and inner:
        parts = [kind_of(part, links) for part in inner if part is not Ellipsis]
        many = origin is not tuple or Ellipsis in inner
        return f"list of {parts[0]}" if many else f"list: {', '.join(parts)}"
    if origin is dict:
        return f"mapping of {kind_of(inner[0], links)} to {kind_of(inner[1], links)}"
    if annotation is dict:
        return "mapping"
    return getattr(annotation, "__name__", str(annotation))


def _words(annotation: Any, links: dict[type, str]) -> list[str]:
    """The choices of a `Literal`, or one type."""
    if get_origin(annotation) is Literal:
        return [f"`{_scalar(value)}`" for value in get_args(annotation)]
    return [kind_of(annotation, links)]


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _scalar(value: Any) -> str:
    """A value as YAML writes it on one line; null for None."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return " ".join(text.removesuffix("\n").removesuffix("\n...").split())


def default_of(value: Any) -> str:
    """Returns a default as a code span; a nested object names its class."""
    if value is inspect.Parameter.empty:
        return REQUIRED
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}'s own"
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, (PurePath, timedelta)):
        value = str(value)
    if isinstance(value, (tuple, set, frozenset)):
        value = sorted(value) if isinstance(value, (set, frozenset)) else list(value)
    return "empty" if value == "" else f"`{_scalar(value)}`"


def sentence(text: str | None) -> str:
    """Returns a piece of a docstring as one line that a table takes, its first letter a capital."""
    parts = re.split(r"(`[^`]*`)", " ".join((text or "").split()))
    parts[::2] = [re.sub(r"([<*|])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [part.replace("|", r"\|") for part in parts[1::2]]
    line = "".join(parts)
    # a name keeps its case, and so does a symbol that an equation defines
    return re.sub("^[a-z](?=[a-z'-]*[,;]? (?!=)|$)", lambda found: found[0].upper(), line)


def cell(text: str | None) -> str:
    """Returns what a table says of a parameter: one line that ends with a full stop."""
    line = sentence(text)
    return line if not line or line[-1] in ".!?" else f"{line}."


def about(thing: Any) -> str:
    """Returns what a docstring says before its list of parameters, in paragraphs."""
    found = parse(inspect.cleandoc(thing.__doc__ or ""))
    paragraphs = (found.description or "").split("\n\n")
    return "\n\n".join(_laid_out(paragraph) for paragraph in paragraphs if paragraph.strip())


def _laid_out(paragraph: str) -> str:
    """A paragraph in one line, or a list with a line for each of its items."""
    if not paragraph.startswith("- "):
        return sentence(paragraph)
    items = re.split(r"^- ", paragraph, flags=re.MULTILINE)[1:]
    return "\n".join(f"- {sentence(item)}" for item in items)


def parts_of(thing: Any, links: dict[type, str] | None = None) -> list[Part]:
    """Returns the parameters of a class or function, or the fields of a dataclass.

    A class's parameters are described in its docstring, or where it inherits them.
    """
    return [
        Part(name, kind_of(annotation, links), default_of(default), cell(text))
        for name, annotation, default, text in _raw_parts(thing)
    ]


def complete(thing: Any, parts: list[Part]) -> list[Part]:
    """Returns `parts`; a ValueError names those that no docstring explains."""
    silent = [part.name for part in parts if not part.meaning]
    if silent:
        name = f"{thing.__module__}.{thing.__qualname__}"
        raise ValueError(f"{name}: its docstring does not explain {', '.join(silent)}; add them")
    return parts


@cache
def _raw_parts(thing: Any) -> list[tuple[str, Any, Any, str]]:
    """Name, annotation, default and meaning of each parameter."""
    function = thing.__init__ if inspect.isclass(thing) else thing
    hints = get_type_hints(function)
    texts = _texts(thing)
    made = {}
    if dataclasses.is_dataclass(thing):
        hints = get_type_hints(thing)
        factories = {f.name: f.default_factory for f in dataclasses.fields(thing)}
        made = {n: f() for n, f in factories.items() if f is not dataclasses.MISSING}
    named = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    return [
        (name, hints.get(name, Any), made.get(name, parameter.default), texts.get(name, ""))
        for name, parameter in named.items()
    ]


def _texts(thing: Any) -> dict[str, str]:
    """Meanings by parameter, a base class's where the class itself says nothing."""
    found: dict[str, str] = {}
    for one in reversed(thing.__mro__ if inspect.isclass(thing) else [thing]):
        text = one.__dict__.get("__doc__") if inspect.isclass(one) else one.__doc__
        found |= {p.arg_name: p.description or "" for p in parse(text or "").params}
    return found


def keys_of(thing: Any, inner: type) -> list[str]:
    """Returns the parameters of a class whose annotations name another one."""

    def names(annotation: Any) -> bool:
        return annotation is inner or any(names(part) for part in get_args(annotation))

    return [name for name, annotation, _, _ in _raw_parts(thing) if names(annotation)]


def nested(thing: Any) -> list[type]:
    """Returns the dataclasses among a class's parameters, each before what is inside it."""
    found: list[type] = []

    def visit(annotation: Any) -> None:
        if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
            if annotation not in found:
                found.append(annotation)
                for _, inner, _, _ in _raw_parts(annotation):
                    visit(inner)
            return
        for inner in get_args(annotation):
            visit(inner)

    for _, annotation, _, _ in _raw_parts(thing):
        visit(annotation)
    return found


def table(head: list[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def parts_table(parts: list[Part], first: str = "Key") -> str:
    """Returns the table of parameters, or a line that says there are none."""
    rows = [[f"`{part.name}`", part.kind, part.default, part.meaning] for part in parts]
    return table([first, "Type", "Default", "Meaning"], rows) if rows else "No keys."
