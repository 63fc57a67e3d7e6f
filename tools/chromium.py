"""Chromium, which drives the tests of pages: the machine's own, as its packages install it."""

from __future__ import annotations

import shutil

from tools import engine

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

ARGUMENTS = (
    "--no-sandbox",  # a container has no sandbox, and the pages are ours
    "--disable-gpu",
    "--disable-background-networking",  # it would look up addresses of its own
    "--disable-component-update",
)


def install() -> str:
    """Return the path of the program, which is not fetched: its package needs an administrator."""
    for program in PROGRAMS:
        if found := shutil.which(program):
            return found
    raise engine.NotRunError(f"{PROGRAMS[0]} is not installed")
