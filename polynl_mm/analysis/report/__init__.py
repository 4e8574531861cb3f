"""One page, to be opened from the disk, for any set of trainings."""
