"""What the Lambda functions share: invocations, HTTP, JSON answers, webhook signatures."""
