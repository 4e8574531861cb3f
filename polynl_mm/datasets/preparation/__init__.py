"""Data sets made ready for training: lists, checks, smaller videos."""
