"""Order of the examples in the gallery: common tasks first, special ones later."""

ORDER = (
    # Dipoles and charges of molecules.
    "plot_dipoles.py",
    "plot_check_labels.py",
    "plot_learning_curve.py",
    "plot_noise.py",
    "plot_unknown.py",
    "plot_charges.py",
    "plot_dipole_magnitude.py",
    "plot_ions.py",
    "plot_field.py",
    "plot_quadrupole_potential.py",
    # Surfaces and large systems.
    "plot_slab.py",
    "plot_large.py",
    # Energies, forces and dynamics.
    "plot_dynamics.py",
    "plot_zno_dynamics.py",
    "plot_socket.py",
    "plot_active_learning.py",
    "plot_fixed_point.py",
    # Clusters of water.
    "plot_charge_flow.py",
    "plot_dissociation.py",
    "plot_water_field.py",
    "plot_water_dynamics.py",
    "plot_infrared.py",
    # Reproductions of papers by date of publication, which are a separate section.
    "plot_reproduce_rg91.py",
    "plot_reproduce_s22.py",
    "plot_reproduce_v23.py",
    "plot_reproduce_v25.py",
    "plot_reproduce_c25.py",
)


def by_topic(filename):
    """Return the sort key of an example; examples missing from ORDER come last."""
    return (ORDER.index(filename) if filename in ORDER else len(ORDER), filename)
