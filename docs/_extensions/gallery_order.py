"""Order of the gallery, and the colours of its figures."""

import matplotlib.pyplot as plt

from skqeq._colors import COLORS

# Common tasks first, special ones later.
SECTIONS = {
    "molecules": (
        "plot_dipoles.py",
        "plot_charges.py",
        "plot_charge_search.py",
        "plot_atomic_dipoles.py",
        "plot_dipole_magnitude.py",
        "plot_ions.py",
        "plot_field.py",
        "plot_quadrupole_potential.py",
    ),
    "data": (
        "plot_check_labels.py",
        "plot_explore.py",
        "plot_learning_curve.py",
        "plot_noise.py",
        "plot_intervals.py",
        "plot_unknown.py",
        "plot_active_learning.py",
    ),
    "materials": (
        "plot_slab.py",
        "plot_large.py",
    ),
    "dynamics": (
        "plot_dynamics.py",
        "plot_zno_dynamics.py",
        "plot_socket.py",
        "plot_infrared.py",
        "plot_fixed_point.py",
    ),
    "water": (
        "plot_charge_flow.py",
        "plot_iteration.py",
        "plot_dissociation.py",
        "plot_water_field.py",
        "plot_water_dynamics.py",
    ),
    # By date of publication.
    "reproductions": (
        "plot_reproduce_rg91.py",
        "plot_reproduce_s22.py",
        "plot_reproduce_v23.py",
        "plot_reproduce_v25.py",
        "plot_reproduce_c25.py",
    ),
}
FOLDERS = list(SECTIONS)
ORDER = [name for names in SECTIONS.values() for name in names]


def by_topic(filename):
    """Return the sort key of an example; examples missing from SECTIONS come last."""
    return (ORDER.index(filename) if filename in ORDER else len(ORDER), filename)


def by_section(folder):
    """Return the sort key of a folder of examples."""
    name = folder.rstrip("/").rpartition("/")[2]
    return (FOLDERS.index(name) if name in FOLDERS else len(FOLDERS), name)


def set_colors(gallery_conf, filename):
    """Give the lines of an example the colours of `skqeq.plotting`, before it runs."""
    plt.rcParams["axes.prop_cycle"] = plt.cycler(color=COLORS)
