"""What template.yaml says of the functions and of the stream's mapping."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from typing import Any

from tools.template import of_type, table_properties, template

TABLE_NAME = "customers"


@dataclass(frozen=True)
class MappingRules:
    """How the stream is mapped to its function.

    Parameters
    ----------
    batch_size : int
        Most records of one invocation.
    bisect : bool
        Whether a batch that failed is split in two.
    max_retries : int
        How often a batch is tried again; -1 for as long as its records live.
    max_age : float
        Seconds after which a record is given up; -1 for never.
    partial : bool
        Whether the function's report of the records that failed counts.
    patterns : tuple
        Filter patterns; a record that fits none never reaches the function.
    """

    batch_size: int = 100
    bisect: bool = False
    max_retries: int = -1
    max_age: float = -1
    partial: bool = False
    patterns: tuple[dict[str, Any], ...] = ()


@cache
def timeouts() -> dict[str, float]:
    """Seconds that each function may take, by the name of its folder."""
    return {
        PurePath(function["Properties"]["CodeUri"]).name: float(function["Properties"]["Timeout"])
        for function in of_type("AWS::Serverless::Function").values()
    }


@cache
def mapping_rules() -> MappingRules:
    """The rules of the mapping from the table's stream to `apply_event`."""
    (given,) = (
        event["Properties"]
        for function in of_type("AWS::Serverless::Function").values()
        for event in function["Properties"].get("Events", {}).values()
        if event["Type"] == "DynamoDB"
    )
    defaults = MappingRules()
    filters = given.get("FilterCriteria", {}).get("Filters", [])
    return MappingRules(
        batch_size=int(_value(given.get("BatchSize", defaults.batch_size))),
        bisect=bool(given.get("BisectBatchOnFunctionError", defaults.bisect)),
        max_retries=int(_value(given.get("MaximumRetryAttempts", defaults.max_retries))),
        max_age=float(_value(given.get("MaximumRecordAgeInSeconds", defaults.max_age))),
        partial="ReportBatchItemFailures" in given.get("FunctionResponseTypes", ()),
        patterns=tuple(json.loads(entry["Pattern"]) for entry in filters),
    )


@cache
def table_definition() -> dict[str, Any]:
    """What CreateTable is asked for."""
    (table,) = of_type("AWS::DynamoDB::Table").values()
    view = table["Properties"]["StreamSpecification"]
    return {
        "TableName": TABLE_NAME,
        **table_properties(),
        "StreamSpecification": {"StreamEnabled": True, **view},
    }


def _value(given: Any) -> Any:
    """A property, or its parameter's default where it refers to one."""
    if isinstance(given, dict) and "Ref" in given:
        return template()["Parameters"][given["Ref"]]["Default"]
    return given
