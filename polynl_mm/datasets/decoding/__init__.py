"""Decoding steps for pipelines, which survive files that cannot be decoded."""
