"""What the product costs, measured on one machine without AWS; docs/benchmarks.md explains it."""
