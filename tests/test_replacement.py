"""No change of code, of a parameter or of a secret replaces the table, the API or the webhook."""

from __future__ import annotations

from functools import reduce
from operator import getitem

import pytest

from tests.replacement import (
    OF_ONE_INGRESS,
    RETAINED,
    Change,
    dangers,
    document,
    transformed,
)

TEMPLATE = document()


def values(name: str) -> list[str]:
    """The allowed values of a parameter but the default, or any value: SAM does not validate."""
    declared = TEMPLATE["Parameters"][name]
    allowed = declared.get("AllowedValues", ["another"])
    return [str(value) for value in allowed if value != declared["Default"]]


class TestRetainedResources:
    @pytest.mark.exhaustive
    @pytest.mark.parametrize("name", TEMPLATE["Parameters"])
    def test_survive_every_parameter_value(self, name: str) -> None:
        assert dangers(TEMPLATE, [Change({name: value}) for value in values(name)]) == []

    def test_survive_other_code(self) -> None:
        other = Change(code="two")
        assert dangers(TEMPLATE, [other]) == []
        # It is other code to SAM too: each function gets a new version.
        before, after = (transformed(TEMPLATE, change) for change in (Change(), other))
        functions = [r for r in TEMPLATE["Resources"].values() if r["Type"].endswith("::Function")]
        assert len(after.keys() - before.keys()) == len(functions)

    def test_survive_all_changes_at_once(self) -> None:
        everything = {name: values(name)[-1] for name in TEMPLATE["Parameters"]}
        assert dangers(TEMPLATE, [Change(everything, "two")]) == []

    def test_exist_once_each(self) -> None:
        resources = transformed(TEMPLATE, Change())
        del resources["UndeliveredEvents"]  # its messages may go: the sweep finds their events
        kinds = [resource["Type"] for resource in resources.values()]
        assert {kind: kinds.count(kind) for kind in RETAINED} == dict.fromkeys(RETAINED, 1)

    def test_ingress_resources_depend_on_webhook_ingress_alone(self) -> None:
        for condition in OF_ONE_INGRESS.values():
            given = str(TEMPLATE["Conditions"][condition])
            named = {name for name in TEMPLATE["Parameters"] if f"'{name}'" in given}
            assert named - {"StripeEventSource"} == {"WebhookIngress"}

    @pytest.mark.parametrize(
        ("where", "value", "found"),
        [
            ("Table.Condition", "HasBus", "Table"),
            ("Table.Properties.TableName", {"Ref": "StripeMode"}, "Table"),
            ("Table.Properties.TableName", {"Fn::Sub": "${StripeMode}"}, "Table"),
            ("DeadLetters.Properties.QueueName", "{{resolve:ssm:/name}}", "DeadLetters"),
            # The webhook's URL is the alias's, and the alias is the function's.
            ("LinkCustomer.Condition", "HasBus", "LinkCustomerUrl"),
            ("LinkCustomer.Properties.FunctionName", {"Ref": "StripeMode"}, "LinkCustomerUrl"),
            # SAM inserts the parameter's value: only another value makes a difference.
            ("LinkCustomer.Properties.AutoPublishAlias", {"Ref": "LogLevel"}, "LinkCustomerUrl"),
        ],
    )
    def test_do_not_change_unnoticed(self, where: str, value: object, found: str) -> None:
        template = document()
        *path, name = where.split(".")
        reduce(getitem, path, template["Resources"])[name] = value
        changes = [Change({"LogLevel": "ERROR"})]
        assert any(danger.startswith(f"{found} ") for danger in dangers(template, changes))
