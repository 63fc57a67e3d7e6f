"""The use cases of events, below the public API."""
