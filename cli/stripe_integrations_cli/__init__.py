"""``stripe-customers``: the command line for operators of a deployed stack."""
