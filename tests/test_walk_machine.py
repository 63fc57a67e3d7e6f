"""The state machine that walks the account: its definition, and what its role allows.

The local AWS, on which tests/local_cloud/test_walk.py runs it, neither checks a definition nor
enforces the role.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from stripe_integrations import errors
from stripe_integrations.models.run import RunKind, RunState
from tools.template import of_type, template

Json = dict[str, Any]

(MACHINE,) = (r["Properties"] for r in of_type("AWS::StepFunctions::StateMachine").values())
ROLE = template()["Resources"]["WalkMachineRole"]["Properties"]
VALUES = {"Function": "arn:function", "Partition": "aws", "Workers": "4"}
NAME = "${AWS::StackName}-walk"
IDS = {"run_id", "worker", "action", "options"}


def definition() -> Json:
    text = str(MACHINE["DefinitionString"])
    for name, value in VALUES.items():
        text = text.replace(f"${{{name}}}", value)
    parsed: Json = json.loads(text)
    return parsed


TOP = definition()
WALK: Json = TOP["States"]["Walk"]
MACHINES = [TOP, WALK["ItemProcessor"]]
STATES = [(name, state) for machine in MACHINES for name, state in machine["States"].items()]
TASKS = [(name, state) for name, state in STATES if state["Type"] == "Task"]


def following(state: Json) -> Iterator[str]:
    """The states that may come after one."""
    yield from (state[key] for key in ("Next", "Default") if key in state)
    yield from (choice["Next"] for choice in state.get("Choices", ()))


class TestDefinition:
    def test_is_completed_by_the_template(self) -> None:
        assert MACHINE["DefinitionSubstitutions"].keys() == VALUES.keys()
        assert MACHINE["DefinitionSubstitutions"]["Function"] == {"Ref": "WalkAccount.Alias"}
        assert MACHINE["DefinitionSubstitutions"]["Workers"] == {"Ref": "WalkWorkers"}

    @pytest.mark.parametrize("machine", MACHINES)
    def test_reaches_every_state_and_an_end(self, machine: Json) -> None:
        states = machine["States"]
        reached, left = set(), [machine["StartAt"]]
        while left:
            name = left.pop()
            if name not in reached:
                reached.add(name)
                left += following(states[name])
        assert reached == states.keys()
        ends = {name for name, state in states.items() if not list(following(state))}
        assert {states[name]["Type"] for name in ends} <= {"Succeed", "Fail"}
        assert ends

    @pytest.mark.parametrize(("name", "task"), TASKS)
    def test_tasks_invoke_the_function_and_retry(self, name: str, task: Json) -> None:
        assert task["Resource"] == "arn:aws:states:::lambda:invoke"
        assert task["Parameters"]["FunctionName"] == VALUES["Function"]
        assert task["Parameters"]["Payload"]["action"] == name.lower()
        assert task["Retry"][-1]["ErrorEquals"] == ["States.TaskFailed", "States.Timeout"]
        timeout = of_type("AWS::Serverless::Function")["WalkAccount"]["Properties"]["Timeout"]
        assert task["TimeoutSeconds"] > timeout

    @pytest.mark.parametrize(("name", "task"), TASKS)
    def test_errors_that_would_be_repeated_are_ours(self, name: str, task: Json) -> None:
        """Step Functions has the name of an exception's class as the name of the error."""
        for retry in task["Retry"][:-1]:
            assert retry["MaxAttempts"] == 0
            for error in retry["ErrorEquals"]:
                assert issubclass(getattr(errors, error), errors.StripeIntegrationsError), name

    def test_passes_on_ids_alone(self) -> None:
        for _, task in TASKS:
            given = {key.removesuffix(".$") for key in task["Parameters"]["Payload"]}
            kept = {key.removesuffix(".$") for key in task["ResultSelector"]}
            assert given <= IDS
            assert kept <= {"run_id", "worker", "is_done", "wait_seconds", "state", "differences"}
        assert WALK["ItemSelector"].keys() == {"run_id.$", "worker.$"}
        assert WALK["ResultPath"] is None

    def test_run_has_the_name_of_the_execution(self) -> None:
        payload = TOP["States"]["Start"]["Parameters"]["Payload"]
        assert payload["run_id.$"] == "$$.Execution.Name"

    def test_workers_are_children_of_a_distributed_map(self) -> None:
        config = {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
        assert WALK["ItemProcessor"]["ProcessorConfig"] == config
        assert WALK["MaxConcurrency"] == 4
        assert TOP["States"]["Workers"]["Parameters"]["numbers.$"] == "States.ArrayRange(1, 4, 1)"
        assert WALK["ItemsPath"] == "$.numbers"

    def test_worker_that_fails_ends_no_other(self) -> None:
        assert WALK["ToleratedFailurePercentage"] == 100
        (choice,) = TOP["States"]["IsFinished"]["Choices"]
        assert (choice["StringEquals"], choice["Next"]) == (RunState.RUNNING, "Unfinished")
        assert TOP["States"]["Unfinished"]["Type"] == "Fail"

    def test_workers_work_until_they_are_done(self) -> None:
        states = WALK["ItemProcessor"]["States"]
        assert states["Work"]["Next"] == "IsDone"
        assert states["IsDone"]["Default"] == "Work"
        done, waits = states["IsDone"]["Choices"]
        assert (done["Variable"], done["BooleanEquals"]) == ("$.is_done", True)
        assert (waits["Variable"], waits["NumericGreaterThan"]) == ("$.wait_seconds", 0)
        assert (done["Next"], waits["Next"]) == ("Done", "Wait")

    def test_waits_in_place_of_the_worker(self) -> None:
        wait = WALK["ItemProcessor"]["States"]["Wait"]
        assert (wait["Type"], wait["SecondsPath"], wait["Next"]) == (
            "Wait",
            "$.wait_seconds",
            "Work",
        )


class TestRole:
    def statements(self) -> dict[str, Json]:
        (policy,) = ROLE["Policies"]
        found = policy["PolicyDocument"]["Statement"]
        assert all(statement["Effect"] == "Allow" for statement in found)
        return {statement["Sid"]: statement for statement in found}

    def test_is_assumed_by_step_functions_of_this_account(self) -> None:
        assert ROLE.keys() == {"AssumeRolePolicyDocument", "Policies"}
        (statement,) = ROLE["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Principal"] == {"Service": "states.amazonaws.com"}
        own = {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
        assert statement["Condition"] == own

    def test_invokes_the_deployed_alias_alone(self) -> None:
        invoke = self.statements()["Invoke"]
        assert (invoke["Action"], invoke["Resource"]) == (
            "lambda:InvokeFunction",
            {"Ref": "WalkAccount.Alias"},
        )

    def test_starts_its_own_children(self) -> None:
        arn = "arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}"
        assert MACHINE["StateMachineName"] == {"Sub": NAME}
        start, workers = (self.statements()[sid] for sid in ("StartWorkers", "Workers"))
        assert start["Action"] == "states:StartExecution"
        assert start["Resource"] == {"Sub": f"{arn}:stateMachine:{NAME}"}
        assert workers["Action"] == ["states:DescribeExecution", "states:StopExecution"]
        assert workers["Resource"] == [
            {"Sub": f"{arn}:execution:{NAME}:*"},
            {"Sub": f"{arn}:execution:{NAME}/{WALK['Label']}:*"},
        ]

    def test_reaches_everything_only_where_there_are_no_resource_types(self) -> None:
        everything = {sid for sid, each in self.statements().items() if each["Resource"] == "*"}
        assert everything == {"Trace", "Log"}
        actions = self.statements()["Trace"]["Action"] + self.statements()["Log"]["Action"]
        assert {action.partition(":")[0] for action in actions} == {"xray", "logs"}


class TestLog:
    def test_has_failures_and_expires(self) -> None:
        config = MACHINE["LoggingConfiguration"]
        (destination,) = config["Destinations"]
        group = destination["CloudWatchLogsLogGroup"]["LogGroupArn"]
        assert (config["Level"], group) == ("ERROR", {"GetAtt": "WalkMachineLogs.Arn"})
        logs = template()["Resources"]["WalkMachineLogs"]["Properties"]
        assert logs["LogGroupName"]["Sub"].startswith("/aws/vendedlogs/")
        assert logs["RetentionInDays"] == {"Ref": "LogRetentionInDays"}

    def test_traces(self) -> None:
        assert MACHINE["TracingConfiguration"] == {"Enabled": True}


class TestSchedule:
    RULE: ClassVar[Json] = template()["Resources"]["VerifyRule"]
    ROLE: ClassVar[Json] = template()["Resources"]["VerifyRuleRole"]

    def test_starts_a_verification(self) -> None:
        (target,) = self.RULE["Properties"]["Targets"]
        assert target["Arn"] == {"Ref": "WalkMachine"}
        assert target["RoleArn"] == {"GetAtt": "VerifyRuleRole.Arn"}
        assert json.loads(target["Input"]) == {"kind": RunKind.VERIFY}

    def test_is_off_by_default_and_while_closed(self) -> None:
        parameter = template()["Parameters"]["VerifyEvery"]
        assert parameter["Default"] == "off"
        assert self.RULE["Condition"] == self.ROLE["Condition"] == "VerifiesRegularly"
        assert self.RULE["Properties"]["State"] == {"If": ["IsClosed", "DISABLED", "ENABLED"]}

    def test_intervals_are_rates_of_eventbridge(self) -> None:
        assert self.RULE["Properties"]["ScheduleExpression"] == {"Sub": "rate(${VerifyEvery})"}
        for interval in template()["Parameters"]["VerifyEvery"]["AllowedValues"]:
            assert interval == "off" or re.fullmatch(r"1 day|([2-9]|[1-9]\d+) days", interval)

    def test_role_starts_the_machine_alone(self) -> None:
        (policy,) = self.ROLE["Properties"]["Policies"]
        (statement,) = policy["PolicyDocument"]["Statement"]
        assert statement["Action"] == "states:StartExecution"
        assert statement["Resource"] == {"Ref": "WalkMachine"}
        (assumed,) = self.ROLE["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        assert assumed["Principal"] == {"Service": "events.amazonaws.com"}
        assert assumed["Condition"] == {
            "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
        }
