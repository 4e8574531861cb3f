"""Trained models for others: published checkpoints and ONNX files."""
