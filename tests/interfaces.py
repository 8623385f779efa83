"""Signatures of real libraries and of their stand-ins, and the calls that a module of the product makes."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Call", "accepts", "calls_of", "positions", "signatures"]


@dataclass(frozen=True)
class Call:
    """A call in the source of the product.

    Attributes:
        on: the expression that it is made on, as "self._context"; empty for a function's own name.
        name: of the function.
        positional: how many arguments it passes by position.
        keywords: names of the others.
    """

    on: str
    name: str
    positional: int
    keywords: tuple[str, ...] = ()


def calls_of(path: Path) -> Iterator[Call]:
    """The calls in a file; `cuda("cudaFree", pointer)` is one of cudaFree with one argument."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        keywords = tuple(each.arg for each in node.keywords if each.arg)
        if isinstance(node.func, ast.Attribute):
            yield Call(ast.unparse(node.func.value), node.func.attr, len(node.args), keywords)
        elif isinstance(node.func, ast.Name):
            yield Call("", node.func.id, len(node.args), keywords)
        for number, argument in enumerate(node.args[:2]):
            if isinstance(argument, ast.Constant) and re.match("cuda[A-Z]", str(argument.value)):
                yield Call("", argument.value, len(node.args) - number - 1)


def signatures(function: Callable[..., Any]) -> list[inspect.Signature]:
    """Of a function, without `self`; of one that pybind11 made, from its docstring, one for each overload."""
    try:
        found = inspect.signature(function)
    except ValueError:
        found = None
    if found is not None and "args" not in found.parameters:
        return [_without_self(found.parameters.values())]
    name, text = re.escape(function.__name__), function.__doc__ or ""
    lines = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> ", text, re.MULTILINE)
    return [_without_self(map(_parameter, _split(line))) for line in lines]


def accepts(function: Callable[..., Any], call: Call) -> bool:
    """Whether a function can be called so."""
    return any(_binds(each, call) for each in signatures(function))


def positions(function: Callable[..., Any]) -> set[int]:
    """The fewest and the most arguments by position that a function takes."""
    parameters = [list(each.parameters.values()) for each in signatures(function)]
    needed = {sum(each.default is each.empty for each in one) for one in parameters}
    return needed | {len(one) for one in parameters}


def _binds(signature: inspect.Signature, call: Call) -> bool:
    try:
        signature.bind(*[None] * call.positional, **dict.fromkeys(call.keywords))
    except TypeError:
        return False
    return True


def _without_self(parameters: Any) -> inspect.Signature:
    return inspect.Signature([each for each in parameters if each.name != "self"])


def _split(text: str) -> Iterator[str]:
    """At the commas that lie in no brackets."""
    depth, start = 0, 0
    for index, character in enumerate(text):
        depth += (character in "([{<") - (character in ")]}>")
        if character == "," and not depth:
            yield text[start:index].strip()
            start = index + 1
    if text.strip():
        yield text[start:].strip()


def _parameter(text: str) -> inspect.Parameter:
    name, default = text.partition(":")[0], " = " in text
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name.strip(), kind, default=None if default else inspect.Parameter.empty)
