"""What the documents name is there."""

from __future__ import annotations

import re

from tools.template import ROOT

FAILURES = (ROOT / "docs" / "failures.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def test_every_failure_names_a_test_that_is_there() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^def (test_\w+)\(", sources, re.MULTILINE))
    assert set(re.findall(r"`(test_\w+)`", FAILURES)) <= defined
    tables = re.findall(r"^\|---.*\n((?:\|.*\n)+)", FAILURES, re.MULTILINE)
    shown = [row.split("|")[-2] for table in tables for row in table.splitlines()]
    assert len(shown) > 40
    assert all("`test_" in cell or "`make simulate`" in cell for cell in shown)


def test_every_target_that_the_documents_name_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    readme = (ROOT / "README.md").read_text()
    named = re.findall(r"`?make ([a-z-]+)", readme + FAILURES)
    named += re.findall(r"\(`(test-[a-z-]+)`\)", FAILURES)
    assert set(named) - {"it"} <= targets
