"""Measuring models: cost, speed, pictures."""
