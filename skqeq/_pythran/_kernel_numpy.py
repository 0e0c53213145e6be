"""Derivatives of kernels, vectorised; the twin of `_kernel`."""

import numpy as np
from scipy.sparse import csr_array


def kernel_jacobian(i, j, rows, shifts, products, along, cosines, factors, q):
    dK = products - along[:, :, None] * cosines[rows][:, None]
    dK *= factors[rows][:, None]
    n_pairs, (n_sets, n_atoms), n_points = len(i), q.shape, products.shape[2]
    dK = dK.reshape(n_pairs, 3 * n_points)
    J, virial = np.empty((n_sets, n_atoms, dK.shape[1])), np.empty((n_sets, 3, dK.shape[1]))
    # The sum over pairs is a product with a sparse matrix, with the element +q_i for the neighbour
    # and -q_i for the centre of each pair.
    ends = np.concatenate([j, i]), np.tile(np.arange(n_pairs), 2)
    for k, factors_of_atoms in enumerate(q):
        of_pairs = factors_of_atoms[i]
        signs = np.concatenate([of_pairs, -of_pairs])
        J[k] = csr_array((signs, ends), (n_atoms, n_pairs)) @ dK
        virial[k] = (of_pairs[:, None] * shifts).T @ dK
    virial = virial.reshape(n_sets, 3, 3, n_points).transpose(0, 2, 1, 3)
    return J.reshape(n_sets, n_atoms, 3, n_points), np.ascontiguousarray(virial)
