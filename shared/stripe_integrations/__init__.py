"""Keeps a company's Stripe customers in its own AWS account.

The use cases, and with them the public Python API, are in `stripe_integrations.actions`.
"""
