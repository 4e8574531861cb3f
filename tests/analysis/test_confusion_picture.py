import numpy as np

from polynl_mm.analysis.confusion_picture import row_shares


def test_rows_are_shares_of_the_true_class():
    matrix = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]])
    shares = row_shares(matrix, matrix.sum(axis=1))
    np.testing.assert_array_equal(shares[[0, 2]], [[0.75, 0.25, 0], [0.5, 0, 0.5]])
    assert np.isnan(shares[1]).all(), "a class without samples has no shares"
