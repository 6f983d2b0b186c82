"""Typed objects from plain values, by the same parser that reads the YAMLs."""

from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

T = TypeVar("T")

# values of any type stay as they are: a study's lines that name a class are not that class yet
set_parsing_settings(instantiate_subclass_spec_in_any=False)


class UnfitValues(ValueError):
    """A key that a class does not have, or a value of another type."""


def build(kind: type[T], values: dict[str, Any]) -> T:
    """Returns an instance of `kind` from nested plain values; an unknown key or a wrong type is
    UnfitValues, which names it.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "value")
    try:
        return parser.instantiate(parser.parse_object({"value": values})).value
    except ArgumentError as error:
        text = " ".join(str(error).split()).replace('Parser key "value.', 'key "')
        raise UnfitValues(f"{kind.__name__}: {text}") from error
