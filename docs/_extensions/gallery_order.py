"""The order in which the gallery shows its examples: from the usual to the special."""

ORDER = (
    "plot_dipoles.py",
    "plot_learning_curve.py",
    "plot_noise.py",
    "plot_charges.py",
    "plot_dipole_magnitude.py",
    "plot_ions.py",
    "plot_field.py",
    "plot_quadrupole_potential.py",
    "plot_slab.py",
    "plot_dynamics.py",
    "plot_zno_dynamics.py",
    "plot_socket.py",
    "plot_active_learning.py",
    "plot_large.py",
    "plot_fixed_point.py",
    # In the order of the papers; a section of its own.
    "plot_reproduce_rg91.py",
    "plot_reproduce_s22.py",
    "plot_reproduce_v23.py",
    "plot_reproduce_v25.py",
    "plot_reproduce_c25.py",
)


def by_topic(filename):
    """Sort key of an example; new ones come last."""
    return (ORDER.index(filename) if filename in ORDER else len(ORDER), filename)
