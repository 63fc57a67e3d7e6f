"""The product under every order of events and faults that a seed can draw."""
