"""What the Lambda functions share: invocations, HTTP, JSON responses, webhook signatures."""
