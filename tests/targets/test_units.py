"""Units of labels, as numbers and as texts."""

import ase.units
import numpy as np
import pytest

from skqeq.targets import parse_unit


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("debye", ase.units.Debye),
        ("D", ase.units.Debye),
        ("HARTREE/bohr", ase.units.Hartree / ase.units.Bohr),
        ("-Hartree/Bohr", -ase.units.Hartree / ase.units.Bohr),
        ("kcal/mol/Ang", ase.units.kcal / ase.units.mol),
        ("eV/Angstrom^3", 1.0),
        ("ha/bohr^3", ase.units.Hartree / ase.units.Bohr**3),
        ("e * bohr", ase.units.Bohr),
        ("meV", 1e-3),
        ("-1", -1.0),
        ("1e-3*V", 1e-3),
        (-0.5, -0.5),
        (np.float32(2.0), 2.0),
        (3, 3.0),
    ],
)
def test_sizes(unit, size):
    assert parse_unit("forces", unit) == pytest.approx(size, rel=1e-12)


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("furlong", "'furlong' in the unit of forces is neither a number nor one of e, Debye"),
        ("", "not a product or quotient"),
        ("-", "not a product or quotient"),
        ("/bohr", "not a product or quotient"),
        ("eV//bohr", "not a product or quotient"),
        ("eV^x", "not a product or quotient|neither a number"),
        ("1/0", "divides by zero"),
        ("0", "finite number other than 0"),
        ("nan", "finite number other than 0"),
        (0, "finite number other than 0"),
        (np.inf, "finite number other than 0"),
        (True, "must be a number or a text, got True"),
        (1j, "must be a number or a text"),
        (None, "must be a number or a text"),
        ([1.0], "must be a number or a text"),
    ],
)
def test_refused(unit, message):
    with pytest.raises(ValueError, match=message):
        parse_unit("forces", unit)
