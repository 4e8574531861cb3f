"""Fuse the scores of several tests: ``report_accuracy.py --preds A.pkl B.pkl ...``."""

from polynl_mm.commands.report_accuracy import main

if __name__ == "__main__":
    main()
