"""A module of custom handlers that can't be imported: a setting is missing."""

from __future__ import annotations

import os

BUCKET = os.environ["NO_SUCH_VARIABLE_IS_SET"]
