"""The files of the example in docs/custom-handlers.md."""

from __future__ import annotations

import re
from pathlib import Path

from tools.template import ROOT

DOCUMENT = ROOT / "docs" / "custom-handlers.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
FILES = ("stripe_event_handlers.py", "billing.py", "test_billing.py")


def write_example(folder: Path) -> None:
    """Write the files of the example into a new folder."""
    folder.mkdir()
    for name, text in zip(FILES, EXAMPLES, strict=True):
        (folder / name).write_text(text)
