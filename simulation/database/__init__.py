"""DynamoDB in one process: its rules, its answers, its streams, on a clock of the caller's."""

from simulation.database.engine import Database
from simulation.database.errors import Answer, error_answer
from simulation.database.stream import Stream

__all__ = ["Answer", "Database", "Stream", "error_answer"]
