"""Errors of commands: each is one line for the operator, and an exit status for scripts."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit status means."""

    OK = 0
    FAILED = 1
    """It failed, or it found differences or problems."""
    USAGE = 2
    """It was called wrongly; nothing was done."""
    INTERRUPTED = 130
    """Ctrl-C."""


class CommandError(Exception):
    """A command can't continue; the message is one line for the operator.

    Parameters
    ----------
    message : str
        What happened, and what to do about it.
    code : ExitCode
        The exit status.
    """

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


class UsageError(CommandError):
    """The arguments don't fit together; nothing was done."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.USAGE)
