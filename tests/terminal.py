"""A real terminal for a program that asks questions."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 150
TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Passwords are read from the terminal that controls the session. A shell ignores Ctrl-C in what it
runs in the background, as these tests may be."""


def run_in_terminal(
    command: Sequence[str],
    answers: Mapping[str, str] | None = None,
    interrupt_at: str = "",
    **options: Any,
) -> tuple[int, str]:
    """Run a program in a terminal, and return its status and what is on the screen.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments.
    answers : mapping, optional
        What is typed, as a line, once the screen has a text for the first time.
    interrupt_at : str, optional
        The text at which Ctrl-C is pressed.
    **options
        Of `subprocess.Popen`.
    """
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, WIDTH, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *command],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        **options,
    )
    os.close(terminal)
    decoder = codecs.getincrementaldecoder("utf-8")()
    left, screen = dict(answers or {}), ""
    while True:
        try:
            screen += decoder.decode(os.read(controller, 4096))
        except OSError:  # the program has ended
            break
        for asked in [text for text in left if text in screen]:
            os.write(controller, f"{left.pop(asked)}\n".encode())
        if interrupt_at and interrupt_at in screen:
            interrupt_at = ""
            os.write(controller, b"\x03")
    os.close(controller)
    return process.wait(), screen.replace("\r\n", "\n")
