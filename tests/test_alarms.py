"""What template.yaml promises of alarms, of the dashboard, and of rolling back on alarms."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest

from stripe_integrations.observability import NAMESPACE, Metric
from tests.replacement import Change, document, transformed
from tools.template import ROOT, of_type, template

ALARMS = of_type("AWS::CloudWatch::Alarm")
FUNCTIONS = of_type("AWS::Serverless::Function")
BY_ROUTE = {
    "CreateCustomer": ("POST", "/customers"),
    "GetCustomer": ("GET", "/customers/{user_id}"),
    "SyncCustomer": ("POST", "/customers/{user_id}/sync"),
    "SoftDeleteCustomer": ("DELETE", "/customers/{user_id}"),
}


def dimensions(name: str) -> dict[str, Any]:
    return {d["Name"]: d["Value"] for d in ALARMS[name]["Properties"]["Dimensions"]}


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_watches_one_metric_and_tells_the_topic(name: str) -> None:
    properties = ALARMS[name]["Properties"]
    assert "Metrics" not in properties
    assert properties["MetricName"]
    assert ("Statistic" in properties) != ("ExtendedStatistic" in properties)
    assert properties["TreatMissingData"] in {"breaching", "notBreaching", "ignore"}
    told = {"If": ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    assert properties["AlarmActions"] == properties["OKActions"] == told


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_says_where_the_runbook_has_it(name: str) -> None:
    described = ALARMS[name]["Properties"]["AlarmDescription"]
    assert described.endswith(f" docs/operate.md says under {name} what to do.")


@pytest.mark.parametrize("name", BY_ROUTE)
def test_a_route_that_answers_5xx_is_an_alarm(name: str) -> None:
    """Handlers catch what goes wrong and answer, so Lambda counts no error."""
    watched = ALARMS[f"{name}Errors"]["Properties"]
    assert (watched["Namespace"], watched["MetricName"]) == ("AWS/ApiGateway", "5xx")
    method, path = BY_ROUTE[name]
    assert dimensions(f"{name}Errors") == {
        "ApiId": {"Ref": "Api"},
        "Stage": {"Ref": "ApiStage"},
        "Method": method,
        "Resource": path,
    }
    route = of_type("AWS::ApiGatewayV2::Route")[f"{name}Route"]["Properties"]["RouteKey"]
    assert route == f"{method} {path}"
    # By route they are counted only where this is on.
    stage = of_type("AWS::ApiGatewayV2::Stage")["ApiStage"]["Properties"]
    assert stage["DefaultRouteSettings"]["DetailedMetricsEnabled"]


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - BY_ROUTE.keys()))
def test_a_function_that_fails_is_an_alarm(name: str) -> None:
    watched = ALARMS[f"{name}Errors"]["Properties"]
    metric = "Url5xxCount" if name == "LinkCustomer" else "Errors"
    assert (watched["Namespace"], watched["MetricName"]) == ("AWS/Lambda", metric)
    assert dimensions(f"{name}Errors") == {"FunctionName": {"Ref": name}}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_is_throttled_is_an_alarm(name: str) -> None:
    watched = ALARMS[f"{name}Throttles"]["Properties"]
    assert (watched["Namespace"], watched["MetricName"]) == ("AWS/Lambda", "Throttles")
    assert dimensions(f"{name}Throttles") == {"FunctionName": {"Ref": name}}


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("ApiSlow", ("AWS/ApiGateway", "Latency", "p99")),
        ("WebhookSlow", ("AWS/Lambda", "Duration", "p99")),
        ("DeadLettersWaiting", ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum")),
        ("StreamBehind", ("AWS/Lambda", "IteratorAge", "Maximum")),
        ("SignaturesRefused", (NAMESPACE, Metric.SIGNATURES_REFUSED.title, "Sum")),
        ("EventsUnfinished", (NAMESPACE, Metric.OLDEST_UNFINISHED_EVENT_AGE.title, "Maximum")),
        ("SweepOverdue", (NAMESPACE, Metric.SWEEP_AGE.title, "Maximum")),
    ],
)
def test_what_else_is_an_alarm(name: str, metric: tuple[str, str, str]) -> None:
    watched = ALARMS[name]["Properties"]
    statistic = watched.get("Statistic", watched.get("ExtendedStatistic"))
    assert (watched["Namespace"], watched["MetricName"], statistic) == metric
    if metric[0] == NAMESPACE:
        assert dimensions(name) == {"service": {"Ref": "AWS::StackName"}}


def test_our_metrics_are_of_the_stack() -> None:
    variables = template()["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}


def test_a_schedule_that_has_stopped_is_an_alarm_and_one_that_is_slow_is_not() -> None:
    watched = ALARMS["EventsUnfinished"]["Properties"]
    assert watched["TreatMissingData"] == "breaching"
    longest_pause = 60 * template()["Parameters"]["ReconcileEveryMinutes"]["MaxValue"]
    for name in ("EventsUnfinished", "SweepOverdue"):
        assert ALARMS[name]["Properties"]["Period"] > longest_pause
        assert ALARMS[name]["Properties"]["Threshold"] > longest_pause


# ---- the dashboard ------------------------------------------------------------------------------


def widgets() -> list[dict[str, Any]]:
    (dashboard,) = of_type("AWS::CloudWatch::Dashboard").values()
    body = json.loads(dashboard["Properties"]["DashboardBody"]["Sub"])
    return list(body["widgets"])


def test_the_dashboard_shows_every_alarm() -> None:
    (shown,) = (w["properties"]["alarms"] for w in widgets() if w["type"] == "alarm")
    assert sorted(shown) == sorted(f"${{{name}.Arn}}" for name in ALARMS)


def test_the_dashboard_shows_every_metric_of_ours_and_every_function() -> None:
    lines = [line for w in widgets() for line in w["properties"].get("metrics", [])]
    ours = {line[1] for line in lines if line[0] == NAMESPACE}
    assert ours == {metric.title for metric in Metric}
    for metric in ("Errors", "Throttles", "Duration"):
        shown = {line[3] for line in lines if line[:2] == ["AWS/Lambda", metric]}
        assert shown == {f"${{{name}}}" for name in FUNCTIONS}


def test_the_dashboard_draws_the_thresholds_of_the_alarms() -> None:
    drawn = {
        line["label"]: line["value"]
        for w in widgets()
        for line in w["properties"].get("annotations", {}).get("horizontal", [])
    }
    assert drawn == {name: ALARMS[name]["Properties"]["Threshold"] for name in drawn}
    assert drawn.keys() == {
        "ApiSlow", "WebhookSlow", "StreamBehind", "EventsUnfinished", "SweepOverdue"
    }  # fmt: skip


def test_the_widgets_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for w in widgets():
        cells = {
            (x, y)
            for x in range(w["x"], w["x"] + w["width"])
            for y in range(w["y"], w["y"] + w["height"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


# ---- rolling out --------------------------------------------------------------------------------


def test_a_canary_that_sets_an_alarm_off_is_rolled_back() -> None:
    resources = transformed(document(), Change({"Canary": "true"}))
    groups = {n: r for n, r in resources.items() if r["Type"].endswith("::DeploymentGroup")}
    assert len(groups) == len(FUNCTIONS)
    for name in FUNCTIONS:
        group = groups[f"{name}DeploymentGroup"]["Properties"]
        watched = [{"Name": {"Ref": f"{name}{what}"}} for what in ("Errors", "Throttles")]
        assert group["AlarmConfiguration"] == {"Enabled": True, "Alarms": watched}
        assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
        alias = resources[f"{name}Aliaslive"]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
        assert alias["DeploymentGroupName"] == {"Ref": f"{name}DeploymentGroup"}


def test_without_a_canary_nothing_of_it_is_deployed() -> None:
    resources = transformed(document(), Change())
    assert not [n for n, r in resources.items() if "CodeDeploy" in r["Type"]]


def parameters_of(environment: str) -> dict[str, str]:
    configured = tomllib.loads((ROOT / "samconfig.toml").read_text())
    given = configured[environment]["deploy"]["parameters"]["parameter_overrides"]
    return dict(re.findall(r"(\w+)=(\S*)", given))


def test_dev_staging_and_prod_differ_as_they_should() -> None:
    dev, staging, prod = (parameters_of(name) for name in ("dev", "staging", "prod"))
    for given in (dev, staging, prod):
        assert given.keys() <= template()["Parameters"].keys()
        for name, value in given.items():
            allowed = template()["Parameters"][name].get("AllowedValues", [value])
            assert value in map(str, allowed)
    assert [given["Canary"] for given in (dev, staging, prod)] == ["false", "true", "true"]
    assert [given.get("StripeMode", "test") for given in (dev, staging, prod)] == [
        "test", "test", "live"
    ]  # fmt: skip
    names = [given.get("StripeApiKeyName") for given in (dev, staging, prod)]
    assert len(set(names)) == 3


def test_the_build_is_the_same_for_all_environments() -> None:
    configured = tomllib.loads((ROOT / "samconfig.toml").read_text())
    assert {n for n, given in configured.items() if n != "version" and "build" in given} == {
        "default"
    }
    assert configured["default"]["build"]["parameters"]["cached"] is False
    assert "deploy" not in configured["default"]
