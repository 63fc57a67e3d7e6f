"""The size of each function's zip; with ``--twice``, also whether a second build is the same.

The functions must have been built. The program prints the results as JSON::

    python -m benchmarks.size --twice
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.bundles import BUNDLES, ZipSizes, build_again, digest, functions


def main() -> None:
    """Print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--twice", action="store_true")
    options = parser.parse_args()
    zips = ZipSizes()
    names = [function.name for function in functions()]
    sizes = {name: asdict(zips.size(BUNDLES / name)) for name in names}
    results: dict[str, object] = {"functions": sizes}
    if options.twice:
        with TemporaryDirectory() as folder:
            build_again(Path(folder))
            results["differing"] = [
                name for name in names if digest(BUNDLES / name) != digest(Path(folder) / name)
            ]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
