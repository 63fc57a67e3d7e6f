"""Chromium for the tests of the console: the one that is installed on this machine."""

from __future__ import annotations

import shutil

from tools import engine

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

ARGUMENTS = (
    "--no-sandbox",  # a container has no sandbox, and the pages are ours
    "--disable-gpu",
    "--disable-background-networking",  # it would send requests of its own
    "--disable-component-update",
)


def install() -> str:
    """Return the path of the program. It is not downloaded: only root can install its package."""
    for program in PROGRAMS:
        if found := shutil.which(program):
            return found
    raise engine.NotRunError(f"{PROGRAMS[0]} is not installed")
