"""The use cases of customers, below the public API."""
