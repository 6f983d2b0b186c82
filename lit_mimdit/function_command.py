"""A plain function as a command: its signature is the parser, its docstring the help."""

import inspect
import json
import re
from argparse import Action
from importlib import import_module
from itertools import takewhile
from typing import Any, get_args, get_origin

from docstring_parser import Docstring, parse
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from lit_mimdit.signatures import signature_of

SHORT = {"output": "-o", "config": "-c"}


class NamedTypes(DefaultHelpFormatter):
    """Help that says `Path` where jsonargparse says `<class 'Path'>`."""

    def _expand_help(self, action: Action) -> str:
        return re.sub(r"<class '(\w+)'>", r"\1", super()._expand_help(action))


def run_function(prog: str, module: str, function: str, args: list[str]) -> int:
    """Parse `args` by a function's signature, then import its module and call it.

    What the function takes by position is positional here too: as many as one likes, if it is a
    list. `output` also answers to -o, `config` to -c.

    Args:
        prog: program and command, as the user called them.
        module: where the function is.
        function: its name.
        args: what the user gave.

    Returns:
        1 if the function returns a number that is not 0, else 0.
    """
    light = signature_of(module, function)
    signature = inspect.signature(light, eval_str=True)
    parser = _parser(prog, light, signature, parse(light.__doc__ or ""))
    values = vars(parser.instantiate(parser.parse_args(_spelled_out(args, signature))))
    given = [values.pop(parameter.name) for parameter in _positional(signature)]
    result = getattr(import_module(module), function)(*given, **values)
    return int(bool(result)) if isinstance(result, int) else 0


def _positional(signature: inspect.Signature) -> list[inspect.Parameter]:
    kinds = signature.parameters.values()
    return [part for part in kinds if part.kind is not inspect.Parameter.KEYWORD_ONLY]


def _parser(prog: str, light: Any, signature: inspect.Signature, text: Docstring) -> ArgumentParser:
    """The parser of a function: positional parameters, short options, then the others."""
    help_of = {part.arg_name: part.description for part in text.params}
    description = f"{text.short_description}\n\n{text.long_description or ''}"
    parser = ArgumentParser(
        prog=prog, description=description, exit_on_error=False, formatter_class=NamedTypes
    )
    positional = _positional(signature)
    for part in positional:
        many = get_origin(part.annotation) is list
        kind = get_args(part.annotation)[0] if many else part.annotation
        count = "+" if many else None
        parser.add_argument(part.name, nargs=count, type=kind, help=help_of[part.name])
    by_hand = {part.name for part in positional}
    for name in SHORT.keys() - by_hand:
        if name not in signature.parameters:
            continue
        by_hand.add(name)
        part = signature.parameters[name]
        required = part.default is inspect.Parameter.empty
        extra = {"required": True} if required else {"default": part.default}
        flags = SHORT[name], f"--{name}"
        parser.add_argument(*flags, type=part.annotation, help=help_of[name], **extra)
    parser.add_function_arguments(light, skip=by_hand, as_group=False)
    return parser


def _spelled_out(args: list[str], signature: inspect.Signature) -> list[str]:
    """The arguments as jsonargparse takes them: a bare flag is true, a list is one value."""
    parts = signature.parameters.items()
    flags = {f"--{name}" for name, part in parts if part.annotation is bool}
    lists = {f"--{name}" for name, part in parts if _is_list(part.annotation)}
    following = [*args[1:], ""]
    spelled = [
        f"{argument}=true" if argument in flags and after not in ("true", "false") else argument
        for argument, after in zip(args, following, strict=False)
    ]
    return join_lists(spelled, lists)


def _is_list(annotation: Any) -> bool:
    """Returns whether an annotation is a list, or a list or None."""
    return get_origin(annotation) is list or any(
        get_origin(part) is list for part in get_args(annotation)
    )


def join_lists(args: list[str], flags: set[str]) -> list[str]:
    """Turn `--checkpoint a b` into what jsonargparse takes.

    That is `--checkpoint ["a", "b"]`. A value that is a list already, or null, stays.
    """
    joined: list[str] = []
    while args:
        flag, *args = args
        values = (
            list(takewhile(lambda value: not value.startswith("-"), args)) if flag in flags else []
        )
        args = args[len(values) :]
        plain = len(values) != 1 or values[0] != "null" and not values[0].startswith("[")
        joined += [flag, json.dumps(values)] if values and plain else [flag, *values]
    return joined
