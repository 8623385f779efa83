"""Fixtures that take long to make mark the tests that use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

Function = TypeVar("Function", bound=Callable[..., object])


def slow_to_make(function: Function) -> Function:
    """A fixture whose tests are `slow`; goes below `@pytest.fixture`."""
    function.mark = "slow"  # type: ignore[attr-defined]
    return function


def full_size(function: Function) -> Function:
    """A fixture whose tests are `full`; goes below `@pytest.fixture`."""
    function.mark = "full"  # type: ignore[attr-defined]
    return function


def pytest_itemcollected(item: pytest.Item) -> None:
    fixtures = getattr(item, "_fixtureinfo", None)
    for name in getattr(item, "fixturenames", ()):
        for fixture in fixtures.name2fixturedefs.get(name, ()) if fixtures else ():
            if mark := getattr(fixture.func, "mark", None):
                item.add_marker(mark)
