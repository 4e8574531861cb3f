import numpy as np

from polynl_mm.analysis.accuracy.confusion_picture import row_shares


def test_rows_are_shares_of_the_true_class():
    matrix = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]])
    shares = row_shares(matrix, matrix.sum(axis=1))
    np.testing.assert_array_equal(shares[[0, 2]], [[0.75, 0.25, 0], [0.5, 0, 0.5]])
    assert np.isnan(shares[1]).all(), "a class without samples has no shares"


def test_shares_of_chosen_classes_are_of_all_their_samples():
    """4 of 10 right are 40 %, whichever columns are shown."""
    matrix = np.array([[4, 1, 5], [0, 2, 0], [3, 0, 1]])
    chosen = [0, 1]
    shares = row_shares(matrix[chosen][:, chosen], matrix.sum(axis=1)[chosen])
    np.testing.assert_allclose(shares, [[0.4, 0.1], [0, 1]])
