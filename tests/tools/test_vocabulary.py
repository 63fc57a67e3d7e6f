"""The words that `make check` looks for are found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class TestVocabulary:
    def test_finds_each_entry_as_prose_and_in_names(self, tmp_path: Path) -> None:
        entries = (ROOT / "tools" / "vocabulary.txt").read_text().splitlines()
        uses = [use for entry in entries for use in uses_of(entry.partition("->")[0])]
        text = tmp_path / "uses.txt"
        text.write_text("\n".join(uses))
        command = [sys.executable, "-m", "codespell_lib", str(text)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        found = {int(number) for number in re.findall(r"uses\.txt:(\d+):", result.stdout)}
        missed = [use for number, use in enumerate(uses, 1) if number not in found]
        assert uses
        assert not missed, result.stderr


def uses_of(entry: str) -> list[str]:
    uses = [f"It has {entry} in it"]
    if re.fullmatch("[a-z_]+", entry):
        uses += [f"with_{entry}_in = 1", f"WITH_{entry.upper()}_IN = 1"]
    if re.fullmatch("[a-z]+", entry):
        uses.append(f"class With{entry.title()}In")
    return uses
