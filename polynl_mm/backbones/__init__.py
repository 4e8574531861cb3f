"""Putting plugins into a backbone."""
