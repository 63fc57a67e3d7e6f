"""DynamoDB in one process: its rules, its answers, its streams, on a clock of the caller's."""

import os

from simulation.database.answers import Answer, error_answer
from simulation.database.stream import Stream

if os.environ.get("SIMULATION_DATABASE") == "ministack":
    from simulation.database.ministack import Database
else:
    from simulation.database.own import Database  # type: ignore[assignment]

__all__ = ["Answer", "Database", "Stream", "error_answer"]
