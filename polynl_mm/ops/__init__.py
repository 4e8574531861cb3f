"""The mathematics: functions on (B, C, N) tensors. Depends on torch alone."""
