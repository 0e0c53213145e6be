"""Kernel charge equilibration with scikit-learn estimators.

A sparse Gaussian process predicts the electronegativity of each atom from its neighbourhood. The
charges minimise an electrostatic energy. They therefore conserve the total charge, interact over
any distance, and respond to an electric field.

Units: eV, Angstrom, e, V/Angstrom; dipoles in e*Angstrom.
"""

# Modules are imported when one of their names is first used (PEP 562), because scikit-learn and
# DScribe take seconds to import. Type checkers read the same names in __init__.pyi.
_NAMES = {
    "_explore": ("explore",),
    "_memory": ("get_memory_budget", "set_memory_budget"),
    "_show_versions": ("show_versions",),
    "calculator": ("KQEqCalculator",),
    "features": (
        "SOAPFeaturizer",
        "StructureBlocks",
        "TotalChargeFeatures",
        "VectorSOAPFeaturizer",
    ),
    "models": (
        "ChargeSearchCV",
        "GAPKQEqRegressor",
        "GAPRegressor",
        "KQEqRegressor",
        "KQEqRegressorCV",
        "PotentialSearchCV",
        "QEqRegressor",
        "calibrate",
        "partial_fit",
        "predict_born_effective_charges",
        "predict_charges",
        "predict_electronegativities",
        "predict_energy",
        "predict_forces",
        "predict_interval",
        "predict_polarizability",
        "predict_std",
        "predict_stress",
        "predict_target",
        "predict_targets",
        "refit",
    ),
    "persistence": ("load", "save"),
    "response": ("ChargeFlow", "QEq"),
    "sparsify": ("CURSparsifier",),
    "structures": ("StructureFeatures", "check_structures", "strip", "with_total_charges"),
    "targets": ("check_labels", "make_targets", "targets_from_atoms"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
# Modules that can be used as attributes after `import skqeq`.
_SUBMODULES = {
    *(module for module in _NAMES if not module.startswith("_")),
    *("active_learning", "datasets", "electrostatics", "fields", "metrics", "model_selection"),
    *("parameters", "plotting", "solvers", "spectra", "validation"),
}

__all__ = sorted(_MODULES)


def __getattr__(name):
    from importlib import import_module

    if name in _SUBMODULES:
        return import_module(f".{name}", __name__)
    if name in _MODULES:
        value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    elif name == "__version__":
        from importlib.metadata import version

        value = version("skqeq")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__, *_SUBMODULES, "__version__"})
