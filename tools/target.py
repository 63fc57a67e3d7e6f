"""Installs the engines of a test target and runs it, or prints in one line why it is not run.

    python -m tools.target test-contract --needs stripe-mock -- python -m pytest tests/contract

The line starts with `NOT RUN:` and the exit code is then 0: an engine that is
unavailable on this machine is no failure of the product. Any other error is a failure.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from tools import chromium, docker_engine, dynamodb_local, engine, stripe_mock

ENGINES = {
    "chromium": chromium.install,
    "docker": docker_engine.install,
    "dynamodb-local": dynamodb_local.install,
    "stripe-mock": stripe_mock.install,
}


def main() -> int:
    """Install the engines and run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target")
    parser.add_argument("--needs", action="append", choices=sorted(ENGINES), default=[])
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    try:
        for name in options.needs:
            ENGINES[name]()
    except engine.NotRunError as why:
        print(f"NOT RUN: {options.target}: {why}", flush=True)
        return 0
    except engine.EngineError as error:
        print(f"{options.target}: {error}", file=sys.stderr)
        return 1
    return subprocess.run(options.command, check=False, cwd=engine.ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
