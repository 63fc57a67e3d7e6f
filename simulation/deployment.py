"""The functions' timeouts, the stream's mapping and the table as template.yaml defines them."""

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
    """The configuration of an event source mapping.

    Parameters
    ----------
    batch_size : int
        Maximum number of records in one invocation.
    bisect : bool
        Whether a failed batch is split in two.
    max_retries : int
        How often a batch is retried; -1 for no limit.
    max_age : float
        Seconds after which a record is discarded; -1 for never.
    partial : bool
        Whether partial batch responses are enabled.
    patterns : tuple
        Filter patterns; a record that matches none is not sent to the function.
    parallelization_factor : int
        How many batches of one shard are in progress at a time.
    batch_window : float
        Seconds for which records are gathered, unless the batch is full earlier.
    """

    batch_size: int = 100
    bisect: bool = False
    max_retries: int = -1
    max_age: float = -1
    partial: bool = False
    patterns: tuple[dict[str, Any], ...] = ()
    parallelization_factor: int = 1
    batch_window: float = 0


@cache
def timeouts() -> dict[str, float]:
    """The timeout of each function in seconds, by the name of its folder."""
    return {
        PurePath(properties["CodeUri"]).name: float(_value(properties["Timeout"]))
        for properties in (f["Properties"] for f in of_type("AWS::Serverless::Function").values())
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
    filters = given["FilterCriteria"]["Filters"]
    return MappingRules(
        batch_size=int(_value(given["BatchSize"])),
        bisect=bool(given["BisectBatchOnFunctionError"]),
        max_retries=int(_value(given["MaximumRetryAttempts"])),
        max_age=float(_value(given["MaximumRecordAgeInSeconds"])),
        partial="ReportBatchItemFailures" in given["FunctionResponseTypes"],
        patterns=tuple(json.loads(entry["Pattern"]) for entry in filters),
        parallelization_factor=int(_value(given["ParallelizationFactor"])),
        batch_window=float(_value(given.get("MaximumBatchingWindowInSeconds", 0))),
    )


@cache
def table_definition() -> dict[str, Any]:
    """The arguments of CreateTable."""
    (table,) = of_type("AWS::DynamoDB::Table").values()
    view = table["Properties"]["StreamSpecification"]
    return {
        "TableName": TABLE_NAME,
        **table_properties(),
        "StreamSpecification": {"StreamEnabled": True, **view},
    }


def _value(given: Any) -> Any:
    """The value of a property, where the parameters that it refers to have their defaults."""
    match given:
        case {"Ref": parameter}:
            return template()["Parameters"][parameter]["Default"]
        case {"FindInMap": [name, first, second]}:
            return template()["Mappings"][name][str(_value(first))][second]
    return given
