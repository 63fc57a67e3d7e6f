"""``make test-schemathesis``: requests generated from openapi.json, on the deployed local cloud.

Schemathesis generates valid and invalid requests and sequences of them, and checks each response
against the document. The seed determines the requests.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

from local.cloud import (
    ACCESS_KEY,
    INHERITED_VARIABLES,
    REGION,
    REQUESTS,
    ROOT,
    Cloud,
    CloudError,
    local_cloud,
    printed_step,
)

SCHEMATHESIS = ROOT / ".tools" / "schemathesis" / "bin" / "schemathesis"
HOOKS = "tools.schemathesis_hooks"
EXCLUDED_CHECKS = {
    "positive_data_acceptance": "Stripe refuses many values of the right type",
    "unsupported_method": "an HTTP API returns 404 instead of 405",
    "ignored_auth": "the local AWS accepts any signature",
    "ensure_resource_availability": "created_customer_is_available in HOOKS replaces it",
}
"""The checks that do not apply here, with the reason."""
CONFIGURATION = """
[checks.negative_data_rejection]
# 413: a body may be refused for its size alone. No 5xx: an error of the API is no refusal.
expected-statuses = [400, 401, 403, 404, 413, 415, 422]
"""
SIGNATURE = (
    f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20260101/{REGION}/execute-api/aws4_request,"
    " SignedHeaders=host, Signature=0"
)
OPERATIONS = 11
"""The number of operations that are called; each gets an equal share of the requests."""
NOT_DEPLOYED = "^/me"
"""The paths that only a stack with an issuer of JWTs has."""
MAX_ROUNDS = 20


def main(arguments: list[str] | None = None) -> int:
    """Send at least the requested number of requests; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500, help="minimum number of requests")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first round")
    options = parser.parse_args(arguments)
    try:
        with local_cloud(printed_step) as cloud:
            return run(cloud, options.requests, options.seed)
    except CloudError as error:
        print(error, file=sys.stderr)
        return 1


def run(cloud: Cloud, requests: int, seed: int) -> int:
    """Run rounds with increasing seeds until enough requests were sent; returns the exit code."""
    failures = 0
    for number in range(MAX_ROUNDS):
        missing = requests - count_requests(cloud)
        if missing <= 0:
            break
        failures += run_round(cloud, math.ceil(missing / OPERATIONS), seed + number)
    print(f"{count_requests(cloud)} requests, {failures} failures")
    return 1 if failures or count_requests(cloud) < requests else 0


def count_requests(cloud: Cloud) -> int:
    """Return the number of API requests in the log of the server."""
    log = (cloud.folder / REQUESTS).read_text()
    return sum("/_aws/execute-api/" in line for line in log.splitlines())


def run_round(cloud: Cloud, examples: int, seed: int) -> int:
    """Send so many generated requests to each operation; returns the number of failures."""
    report = cloud.folder / f"schemathesis-{seed}.json"
    command = [str(SCHEMATHESIS), "run", str(ROOT / "openapi.json"), "--url", cloud.api_url]
    command += ["--header", f"Authorization: {SIGNATURE}", "--seed", str(seed)]
    command += ["--exclude-path-regex", NOT_DEPLOYED]
    command += ["--max-examples", str(examples), "--continue-on-failure"]
    command += ["--checks", "all", "--exclude-checks", ",".join(EXCLUDED_CHECKS)]
    command += ["--generation-database", "none", "--warnings", "off", "--no-color"]
    command += ["--report", "json", "--report-json-path", str(report)]
    environment = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    environment |= {"HOME": str(cloud.folder), "TMPDIR": str(cloud.folder)}
    environment |= {"SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(ROOT)}
    # Schemathesis reads its configuration from its working directory and writes there.
    (cloud.folder / "schemathesis.toml").write_text(CONFIGURATION)
    ended = subprocess.run(command, cwd=cloud.folder, env=environment, check=False)
    return count_failures(report, ended.returncode)


def count_failures(report: Path, returned: int) -> int:
    """Return the number of failures and errors of a round."""
    if not report.exists():
        return 1
    result = json.loads(report.read_text())
    failures: int = result["test_cases"]["unique_failures"] + len(result["errors"])
    return failures or (1 if returned else 0)


if __name__ == "__main__":
    sys.exit(main())
