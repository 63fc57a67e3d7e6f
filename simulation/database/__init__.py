"""An in-process DynamoDB with the caller's clock: its responses and its streams."""

from simulation.database.engine import Database
from simulation.database.responses import Response, consumed_units, error_response, written_units

__all__ = ["Database", "Response", "consumed_units", "error_response", "written_units"]
