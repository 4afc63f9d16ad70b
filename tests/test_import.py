"""What is loaded: `import lrsearch` and `lrsearch --help` cost next to nothing."""

from __future__ import annotations

import pytest

import lrsearch
from tests.imports import loaded_by


def test_the_import_loads_nothing_heavy() -> None:
    assert loaded_by("import lrsearch; dir(lrsearch); lrsearch.__version__") == set()


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["--help"], {"rich", "typer"}),
        (["range-test", "--help"], {"rich", "typer", "pydantic"}),  # with which Typer reads the defaults
    ],
)
def test_the_help_loads_no_more_than_it_prints_with(words: list[str], allowed: set[str]) -> None:
    code = f"from lrsearch.cli import app\ntry: app({words})\nexcept SystemExit: pass"
    assert loaded_by(code) <= allowed


def test_the_suggestion_alone_needs_no_torch() -> None:
    assert "torch" not in loaded_by("from lrsearch.core.suggest import suggest")


def test_every_public_name_is_there() -> None:
    assert {"Task", "range_test", "load", "InputError", "preserve_state"} <= set(lrsearch.__all__)
    assert [name for name in lrsearch.__all__ if getattr(lrsearch, name, None) is None] == []
    assert dir(lrsearch) == lrsearch.__all__


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'lrsearch' has no attribute 'tune'"):
        lrsearch.tune  # noqa: B018
