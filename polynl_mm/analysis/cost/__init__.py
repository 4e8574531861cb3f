"""What models and blocks cost: operations, time, memory."""
