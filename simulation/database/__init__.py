"""DynamoDB in one process, on a clock of the caller's: its answers and its streams."""

from simulation.database.answers import Answer, error_answer
from simulation.database.engine import Database

__all__ = ["Answer", "Database", "error_answer"]
