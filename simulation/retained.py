"""How much memory a task holds while it waits."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from simulation.schedule import Task

_SHARED_TYPES = (
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    MethodType,
    ModuleType,
    type,
)
_SHARED_PACKAGES = ("botocore.", "local.", "pynamodb.connection.", "simulation.")
"""Packages whose objects all tasks share."""


def retained_bytes(task: Task) -> int:
    """Return the size of the objects that the frames of a waiting task refer to.

    Modules, functions and types do not count, nor do the clients and the simulation itself: all
    tasks share them.
    """
    pending = list(_locals(task))
    seen: dict[int, Any] = {}
    while pending:
        value = pending.pop()
        if id(value) in seen or _is_shared(value):
            continue
        seen[id(value)] = value
        pending.extend(gc.get_referents(value))
    return sum(map(sys.getsizeof, seen.values()))


def _locals(task: Task) -> Iterator[Any]:
    frame = task.gr_frame
    while frame is not None:
        yield from frame.f_locals.values()
        frame = frame.f_back


def _is_shared(value: Any) -> bool:
    module = f"{type(value).__module__}."
    return isinstance(value, _SHARED_TYPES) or module.startswith(_SHARED_PACKAGES)
