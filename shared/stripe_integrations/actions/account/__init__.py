"""Walking the whole Stripe account."""
