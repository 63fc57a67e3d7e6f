"""``make smoke``, on a deployed local cloud with a key of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.cloud import ROOT, STACK, Cloud, aws_client, local_cloud, sam_environment

KEY = "arn:aws:kms:us-east-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SIGNING = "stripe/webhook-secret"


@pytest.fixture(scope="module")
def cloud(functions: Path) -> Iterator[Cloud]:
    with local_cloud(parameters={"KmsKeyArn": KEY}, functions=functions) as cloud:
        yield cloud


def smoke(cloud: Cloud, *options: str) -> subprocess.CompletedProcess[str]:
    urls = ["--api-url", cloud.api_url, "--webhook-url", cloud.webhook_url]
    # A URL has a dollar sign, which make would expand.
    return make_smoke(cloud, STACK, " ".join([*urls, *options]).replace("$", "$$"))


def make_smoke(cloud: Cloud, stack: str, arguments: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "smoke", f"STACK={stack}", f"ARGS={arguments}"],  # noqa: S607
        cwd=ROOT,
        # As from a terminal: where make runs these tests, MAKE… would be set.
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
            **sam_environment(cloud.endpoint),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_healthy_stack_passes(cloud: Cloud) -> None:
    ended = smoke(cloud, "--close")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert not [line for line in lines if line.startswith(("FAILED", "not run"))]
    assert "- that Stripe itself reaches the webhook" in lines
    assert lines[-1] == "17 passed, 0 failed"
    users = [item for item in cloud.items() if item["record_type"] == "Customer"]
    assert users
    assert not any(item["is_active"] for item in users)


def test_wrong_signing_secret_fails(cloud: Cloud) -> None:
    secrets = aws_client(cloud.endpoint, "secretsmanager")
    stored = {"SecretId": SIGNING}
    before = secrets.get_secret_value(**stored)["SecretString"]
    secrets.put_secret_value(**stored, SecretString="whsec_another")
    try:
        ended = smoke(cloud)
    finally:
        secrets.put_secret_value(**stored, SecretString=before)
    assert ended.returncode != 0
    assert "FAILED   a signed event is stored: 400 instead of 200" in ended.stdout
    assert "not run  closing and reopening: pass --close" in ended.stdout


def test_unknown_stack_is_named(cloud: Cloud) -> None:
    ended = make_smoke(cloud, "no-such-stack")
    assert ended.returncode != 0
    assert "no-such-stack" in ended.stderr
    assert "Traceback" not in ended.stderr
