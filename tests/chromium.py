"""The system's Chromium: tests that need it are skipped without it, unless LRSEARCH_REQUIRE_CHROMIUM=1."""

from __future__ import annotations

import os
import shutil

import pytest

CHROMIUM = shutil.which("chromium")
WIDTHS = (800, 1400)
"""Pixels: a page must be readable at both."""

_REQUIRED = os.environ.get("LRSEARCH_REQUIRE_CHROMIUM") == "1"
needs_chromium = pytest.mark.skipif(CHROMIUM is None and not _REQUIRED, reason="Chromium is not installed")
