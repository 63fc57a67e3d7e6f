"""The console: what a stack has stored and done, as pages on this machine."""
