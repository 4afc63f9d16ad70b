"""From a template to a page that holds everything itself: escaped, without secrets, pictures inside."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Characters that HTML forbids."""


def render(template: str, clean: Callable[[str], str], **values: Any) -> str:
    """The page of a template beside this module; `clean` takes secrets out of every text in it."""

    def shown(value: Any) -> Any:
        if isinstance(value, Markup) or not isinstance(value, str):
            return value
        return _NO_TEXT.sub("\ufffd", clean(value))

    environment = Environment(
        autoescape=True, finalize=shown, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = resources.files("lrsearch.report").joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(**values)


def data_uri(picture: bytes) -> Markup:
    """A PNG as an address that holds it."""
    return Markup("data:image/png;base64,") + base64.b64encode(picture).decode("ascii")
