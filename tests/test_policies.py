"""The policies of docs/policies allow what their users need, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from tests.replacement import REGION, Change, document, transformed
from tests.roles import Deployment, Grant, Statement
from tools.template import ROOT

EVERYTHING = {
    "Canary": "true",
    "JwtIssuer": "https://login.example.com/",
    "KmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1",
}
NOT_USED: Mapping[str, str] = {
    "dynamodb:*Contributor*": "Contributor Insights",
    "dynamodb:*Kinesis*": "Kinesis streams of the table",
    "dynamodb:*Import*": "import of a table",
    "dynamodb:*Replica": "global tables",
    "dynamodb:*ResourcePolicy": "a resource policy of the table",
    "dynamodb:*Item": "global tables",
    "dynamodb:Query": "global tables",
    "dynamodb:Scan": "global tables",
    "kinesis:*": "Kinesis streams of the table",
    "iam:CreateServiceLinkedRole": "global tables",
    "iam:Attach[GU]*Policy": "users and groups of a policy",
    "iam:Detach[GU]*Policy": "users and groups of a policy",
    "iam:*PermissionsBoundary": "a permissions boundary",
    "kms:ListAliases": "a key by its alias",
    "kms:RevokeGrant": "DynamoDB retires its grants",
    "kms:Encrypt": "a key of a function's environment",
    "s3:*Object": "code and imports in buckets: SAM's own is listed below",
    "s3:*ObjectVersion": "code and imports in buckets: SAM's own is listed below",
    "s3:REST*": "export of logs",
    "s3:*Abac": "access by tags",
    "s3:*Accelerate*": "transfer acceleration",
    "s3:*Acl": "access control lists",
    "s3:*Analytics*": "storage class analysis",
    "s3:*C[Oo][Rr][Ss]": "web pages that read buckets",
    "s3:*Inventory*": "inventories",
    "s3:*Logging": "access logs of buckets",
    "s3:*Metadata*": "metadata tables",
    "s3tables:*": "metadata tables",
    "s3:*Metrics*": "metrics of requests to buckets",
    "s3:*Notification": "events of buckets",
    "s3:*ObjectLock*": "objects that can't be deleted",
    "s3:*Replication*": "replication of buckets",
    "s3:*Tiering*": "storage classes",
    "s3:*Versioning": "versions of objects",
    "s3:*Website": "static web sites",
    "elasticfilesystem:*": "file systems",
    "s3files:*": "file systems",
    "lambda:*ProvisionedConcurrency*": "provisioned concurrency",
    "lambda:*CodeSigning*": "code signing",
    "lambda:*RuntimeManagement*": "pinned runtimes",
    "lambda:*Recursion*": "recursive loops",
    "lambda:*Scaling*": "managed instances",
    "lambda:PassCapacityProvider": "managed instances",
    "lambda:AssociateRuntimeAlias": "pinned runtimes",
    "logs:*DataProtection*": "data protection",
    "logs:*Index*": "field indexes",
    "logs:*BearerToken*": "bearer tokens",
    "logs:*DeletionProtection": "deletion protection",
    "logs:*ciateKmsKey": "keys of log groups",
    "logs:DeleteResourcePolicy": "log groups under /aws/vendedlogs/ need none",
    "logs:PutLogEvents": "import of a table",
    "firehose:*": "delivery of logs to Firehose",
    "codedeploy:RegisterOnPremisesInstance": "machines",
}
"""Actions of the resource types' handlers, and the unused features that need them."""
OUTSIDE_THE_RESOURCES = (
    "cloudformation:*",
    "s3:*",
    "logs:*LogDelivery",
    "logs:ListLogDeliveries",
)
"""Actions of SAM, of CloudFormation, and of the API that delivers its access logs."""
WITHOUT_RESOURCE = {
    "TemplateSummary",
    "AccessLogs",
    "Mapping",
    "LongParameters",
    "HandlersInVpc",
}
"""Statements whose actions have no resource that could be named before it exists."""


def statements(name: str) -> list[dict[str, Any]]:
    policy = json.loads((ROOT / "docs" / "policies" / f"{name}.json").read_text())
    assert policy["Version"] == "2012-10-17"
    found: list[dict[str, Any]] = policy["Statement"]
    assert all(statement["Effect"] == "Allow" for statement in found)
    return found


def allowed(name: str) -> set[str]:
    return {action for statement in statements(name) for action in statement["Action"]}


@cache
def resource_types() -> list[str]:
    """The types of the resources that SAM makes of the template."""
    return sorted({r["Type"] for r in transformed(document(), Change(EVERYTHING)).values()})


def handled(*handlers: str) -> Iterator[tuple[str, str]]:
    """The resource types of the template, and the actions that their handlers call."""
    for kind in resource_types():
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema
        for handler in handlers:
            for action in schema["handlers"].get(handler, {}).get("permissions", []):
                yield kind, action


def matches(action: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(action, pattern) for pattern in patterns)


class TestDeployer:
    def test_may_create_update_and_delete_every_resource(self) -> None:
        missing = {
            (kind, action)
            for kind, action in handled("create", "update", "delete")
            if action not in allowed("deploy") and not matches(action, NOT_USED)
        }
        assert missing == set()

    def test_may_do_nothing_else(self) -> None:
        used = {action for _, action in handled("create", "read", "update", "delete")}
        added = {a for a in allowed("deploy") - used if not matches(a, OUTSIDE_THE_RESOURCES)}
        assert added == set()

    def test_actions_of_unused_features_are_not_allowed(self) -> None:
        for pattern in NOT_USED:
            assert any(fnmatchcase(a, pattern) for _, a in handled("create", "update", "delete"))
        own = {a for a in allowed("deploy") if not a.startswith("s3:")}
        assert not [action for action in own if matches(action, NOT_USED)]

    def test_reaches_resources_of_the_stack_alone(self) -> None:
        for statement in statements("deploy"):
            if statement["Sid"] not in WITHOUT_RESOURCE:
                assert "*" not in statement["Resource"]
            for action in statement["Action"]:
                assert "*" not in action

    def test_passes_roles_to_its_services_alone(self) -> None:
        (passing,) = (s for s in statements("deploy") if "iam:PassRole" in s["Action"])
        assert passing["Action"] == ["iam:PassRole"]
        names = ("lambda", "codedeploy", "states")
        services = [f"{name}.amazonaws.com" for name in names]
        assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": services}}

    def test_attaches_policies_of_the_stack_alone(self) -> None:
        (attaching,) = (s for s in statements("deploy") if "iam:AttachRolePolicy" in s["Action"])
        own, codedeploy = attaching["Condition"]["ArnLike"]["iam:PolicyARN"]
        assert own.endswith(":policy/stripe-customers-*")
        assert codedeploy.endswith("/AWSCodeDeployRoleForLambda*")

    def test_fits_an_inline_policy_of_a_role(self) -> None:
        assert len(json.dumps(statements("deploy"), separators=(",", ":"))) < 10_000


class TestWorker:
    def test_may_do_what_the_functions_of_the_api_may_and_release(self) -> None:
        roles = [
            Deployment(ExistingCustomers="check").role(name)
            for name in (
                "adopt_customer",
                "create_customer",
                "get_customer",
                "soft_delete_customer",
                "sync_customer",
                "update_customer",
            )
        ]
        functions = {
            grant
            for role in roles
            for statement in role.statements
            for grant in statement.grants()
            if not grant.action.startswith(("logs:", "xray:"))
        }
        granted = {
            Grant(grant.action, self.resource(grant.resource), grant.scope)
            for statement in statements("worker")
            for grant in Statement(
                tuple(statement["Action"]),
                tuple(statement["Resource"]),
                statement.get("Condition", {}),
            ).grants()
        }
        assert granted == functions | self.release()

    def release(self) -> set[Grant]:
        """What no function needs: children are deleted if their customer is not stored."""
        adopt = Deployment().role("adopt_customer")
        return {
            Grant("dynamodb:ConditionCheckItem", grant.resource, grant.scope)
            for statement in adopt.statements
            for grant in statement.grants()
            if grant.action == "dynamodb:GetItem" and grant.scope != "DEPLOYMENT"
        }

    def resource(self, arn: str) -> str:
        """The resource of the functions' roles that a resource of the policy corresponds to."""
        return arn.replace("table/stripe-customers-Table-*", "table/customers").replace(
            "secret:stripe/prod/api-key", "secret:stripe/api-key"
        )
