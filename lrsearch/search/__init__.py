"""Decide: range tests and studies as a person calls them; `lrsearch.search(…)` is `search.study.search`."""

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """This package's import sets `lrsearch.search` to the package: calling it is calling the function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from lrsearch.search.study import search

        return search(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
