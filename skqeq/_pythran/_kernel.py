"""Derivatives of kernels, as loops for Pythran; the twin is `_kernel_numpy`."""

import numpy as np


# pythran export kernel_jacobian(int64[:], int64[:], int64[:], float64[:,:], float64[:,:,:],
#                                float64[:,:], float64[:,:], float64[:,:], float64[:,:])
def kernel_jacobian(i, j, rows, shifts, products, along, cosines, factors, q):
    n_points = products.shape[2]
    J = np.zeros((q.shape[0], q.shape[1], 3, n_points))
    virial = np.zeros((q.shape[0], 3, 3, n_points))
    dK = np.empty(n_points)
    for p in range(i.shape[0]):
        row = rows[p]
        for a in range(3):
            part = along[p, a]
            for t in range(n_points):
                dK[t] = factors[row, t] * (products[p, a, t] - part * cosines[row, t])
            for k in range(q.shape[0]):
                factor = q[k, i[p]]
                for t in range(n_points):
                    J[k, j[p], a, t] += factor * dK[t]
                for t in range(n_points):
                    J[k, i[p], a, t] -= factor * dK[t]
                for b in range(3):
                    if shifts[p, b] != 0.0:
                        moment = factor * shifts[p, b]
                        for t in range(n_points):
                            virial[k, a, b, t] += moment * dK[t]
    return J, virial
