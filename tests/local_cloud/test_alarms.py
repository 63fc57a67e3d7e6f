"""What is seen of a deployed stack."""

from __future__ import annotations

import json

from local.cloud import STACK, Cloud
from tools.template import of_type


def test_alarms_are_deployed(cloud: Cloud) -> None:
    deployed = cloud.client("cloudformation").describe_stack_resources(StackName=STACK)
    alarms = cloud.client("cloudwatch").describe_alarms(MaxRecords=100)["MetricAlarms"]
    # Without a canary the alarms that roll it back are not needed.
    always = {n for n, r in of_type("AWS::CloudWatch::Alarm").items() if "Condition" not in r}
    named = {
        resource["PhysicalResourceId"]
        for resource in deployed["StackResources"]
        if resource["LogicalResourceId"] in always
    }
    assert len(named) == len(always)
    assert named == {alarm["AlarmName"] for alarm in alarms}


def test_dashboard_shows_own_resources(cloud: Cloud) -> None:
    watch = cloud.client("cloudwatch")
    (entry,) = watch.list_dashboards()["DashboardEntries"]
    assert entry["DashboardName"].startswith(STACK)
    body = watch.get_dashboard(DashboardName=entry["DashboardName"])["DashboardBody"]
    assert "${" not in body
    lines = [
        line for w in json.loads(body)["widgets"] for line in w["properties"].get("metrics", [])
    ]
    assert {line[3] for line in lines if line[:2] == ["AWS/DynamoDB", "ReadThrottleEvents"]} == {
        cloud.table_name
    }
