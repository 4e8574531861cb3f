"""Draw the confusion matrix of a test: ``confusion_matrix.py RESULTS.pkl ...``."""

from polynl_mm.commands.confusion_matrix import main

if __name__ == "__main__":
    main()
