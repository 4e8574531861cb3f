"""What makes the figures of the documentation."""
