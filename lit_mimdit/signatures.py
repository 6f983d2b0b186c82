"""Signatures of commands without the seconds that importing their modules takes.

`restore --help` and a mistyped option need the parameters and the docstring of a function, and
nothing of torch. Both are read from the function's source. Names in defaults and annotations are
followed to where they are assigned, through the package's own modules.
"""

import ast
import builtins
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

PACKAGE = __name__.split(".")[0]


def signature_of(module: str, function: str) -> Callable:
    """Returns a function with the parameters, annotations, defaults and docstring of a command.

    Args:
        module: of this package; it is read, not imported.
        function: defined at its top level.

    Raises:
        AssertionError: if there is no such function.
    """
    definition = _binding(_tree(module), function)
    assert isinstance(definition, ast.FunctionDef), f"{module} has no function {function}"
    text = ast.get_docstring(definition, clean=False)
    definition.body = [ast.Expr(ast.Constant(text))]
    definition.decorator_list = []
    given = definition.args
    asked = [*given.defaults, *filter(None, given.kw_defaults), definition.returns]
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    asked += [argument.annotation for argument in every]
    # its module is this one: whoever resolves a function's names imports its module
    names = {"__name__": __name__} | _values(module, asked)
    body = ast.fix_missing_locations(ast.Module([definition], []))
    exec(compile(body, f"<signature of {module}.{function}>", "exec"), names)
    return names[function]


@cache
def _path(module: str) -> Path:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, module
    return Path(spec.origin)


def _tree(module: str) -> ast.Module:
    return ast.parse(_path(module).read_text(encoding="utf-8"))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, and those inside its `if`s."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If):
            yield from _statements(statement.body)


def _binding(tree: ast.Module, name: str) -> ast.stmt | None:
    """The last statement that gives a name its value."""
    binding = None
    for statement in _statements(tree.body):
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            bound = [alias.asname or alias.name.split(".")[0] for alias in statement.names]
        elif isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            bound = [statement.name]
        elif isinstance(statement, ast.Assign):
            leaves = [leaf for target in statement.targets for leaf in ast.walk(target)]
            bound = [leaf.id for leaf in leaves if isinstance(leaf, ast.Name)]
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            bound = [statement.target.id]
        else:
            continue
        binding = statement if name in bound else binding
    return binding


def _values(module: str, expressions: list[ast.expr | None]) -> dict[str, Any]:
    """Values of the names in expressions of a module."""
    nodes = list(chain.from_iterable(map(ast.walk, filter(None, expressions))))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    # a comprehension's own variables are bound inside it
    names -= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    free = sorted(name for name in names if not hasattr(builtins, name))
    return {name: _value(module, name) for name in free}


def _value(module: str, name: str) -> Any:
    """Returns what a name of a module stands for."""
    binding = _binding(_tree(module), name)
    assigned = _assigned(binding, name)
    if assigned is not None:
        code = compile(ast.Expression(assigned), f"<{module}.{name}>", "eval")
        return eval(code, _values(module, [assigned]))
    if isinstance(binding, ast.ImportFrom) and binding.level == 0 and binding.module is not None:
        origin = next(a.name for a in binding.names if (a.asname or a.name) == name)
        inside = binding.module.split(".")[0] == PACKAGE
        if inside and _binding(_tree(binding.module), origin) is not None:
            return _value(binding.module, origin)
        if inside:
            return import_module(f"{binding.module}.{origin}")
        return getattr(import_module(binding.module), origin)
    # classes, functions, and whatever else needs its module to run
    return getattr(import_module(module), name)


def _assigned(binding: ast.stmt | None, name: str) -> ast.expr | None:
    """The expression that a statement assigns to a name, also of `a, b = 1, 2`; else None."""
    if isinstance(binding, ast.AnnAssign):
        return binding.value
    if not isinstance(binding, ast.Assign):
        return None
    target, value = binding.targets[0], binding.value
    if isinstance(target, ast.Name):
        return value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        parts = zip(target.elts, value.elts, strict=False)
        return next((v for t, v in parts if isinstance(t, ast.Name) and t.id == name), None)
    return None
