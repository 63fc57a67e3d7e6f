"""What talks to other services: Stripe, the secret stores, the queue and the event bus."""
