"""Runs the parts of the benchmark, each a program of its own that prints JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.template import ROOT

RESULTS = Path(__file__).parent / "results.json"

_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_REGION": "eu-west-1",
    "POWERTOOLS_SERVICE_NAME": "stripe-customers",
    # Sets iterate in the same order in every run.
    "PYTHONHASHSEED": "0",
}
_UNSET = ("AWS_", "STRIPE_", "POWERTOOLS_", "MAKE")


def run(part: str, *arguments: str) -> Any:
    """Run a module of this package and return what it prints, parsed.

    The functions read the environment, so it is always the same, whatever the caller's is.

    Raises
    ------
    subprocess.CalledProcessError
        It failed.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_UNSET)}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{part}", *arguments],
        cwd=ROOT,
        env={**inherited, **_ENVIRONMENT},
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout)
