"""DynamoDB in one process, on a clock of the caller's: its responses and its streams."""

from simulation.database.engine import Database
from simulation.database.responses import Response, error_response

__all__ = ["Database", "Response", "error_response"]
