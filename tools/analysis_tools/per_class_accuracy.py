"""Accuracy of each class of a test: ``per_class_accuracy.py RESULTS.pkl ...``."""

from polynl_mm.commands.per_class_accuracy import main

if __name__ == "__main__":
    main()
