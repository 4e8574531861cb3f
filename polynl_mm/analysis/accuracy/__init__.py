"""What models get right and wrong, from dumps and logs."""
