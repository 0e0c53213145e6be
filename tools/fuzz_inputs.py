"""The inputs of ``tools/fuzz.py``: damaged, wrong and unusual files, and their allowed outcomes."""

import contextlib
import gzip
import io
import warnings
from pathlib import Path

import ase.io
import fuzz_programs
import joblib
import numpy as np
from ase.build import bulk, molecule
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, make_targets
from skqeq.cli import main as command_line
from skqeq.datasets import open_structures

TOKENS = [
    *("nan", "inf", "-inf", "1e400", "-1", "0", "99999999999999999999", "1e-300", "1e8", "", " "),
    *("\x00", "é", "[[", "]", '"', "=", "T", "F", "None", "H", "Xx", "T T F", "{", "\t", "\r"),
    *('Lattice="0 0 0 0 0 0 0 0 0"', 'Lattice="1 0 0 0 1 0 0 0 1e-9"', 'pbc="T T T"', "pbc=T"),
    *("Properties=species:S:1:pos:R:3", "Properties=pos:R:3", "charge=nan", "charge=[1,2]"),
    *("charge=1e300", 'external_field="1 2"', 'external_field="0 0 nan"', "external_field=huge"),
]
VALUES = [
    *(None, "", "text", b"bytes", float("nan"), float("inf"), -1e308, 1e300, 10**400, True, [], {}),
    *([1, 2], [[1, 2, 3]], [1, 2, "x"], {"a": 1}, object(), np.zeros((0, 3)), np.zeros((2, 3, 1))),
    *(np.array("x"), np.array([1.0, np.nan, 0.0]), 1j, np.ma.masked, lambda: 0, [1e200, 0, 0]),
]
UNITS = ("1", "Debye", "1e-3", "Hartree/Bohr", "-1", "nan", "A", "1e400", "/", "=", "1e30")
# Unusual ways to write the same file, and words that make a structure invalid.
CELL_KEYS = ("Lattice", "lattice", "LATTICE")
SAME = {"H": ("H", "h", "1", "D", "T", "d"), "O": ("O", "o", "8")}
WRONG = {
    "symbol": ("O1", "Xx", "X", "0", "119", "*", "CA"),
    "number": ("nan", "1,0", "*****", "1D0"),
    "comment": (
        *("pbc=none", 'pbc="yes yes no"', 'pbc="T T"', "pbc=2", "charge", "charge=2-"),
        *("charge=1D0", 'charge="-1 e"', 'stress="1 2 3 4 5 6"', 'Lattice="4 0 0 0 5 0 0 0"'),
    ),
}
COUNTS = ("{}", "{:21d}", "+{}", "00{}", " {}\t")
GAPS = ("", "\n", "  \n\t\n", "\r\n")
ENDINGS = (
    ".xyz",
    ".XYZ",
    ".extxyz",
    ".xyz.gz",
    ".traj",
    ".db",
    ".cif",
    ".json",
    "",
    ".skqeq",
    ".txt",
)
FORMATS = {"cif": [4], "vasp": [3, 4], "proteindatabank": [0, 4], "sdf": [0, 1], "gen": [0, 4]}
FORMATS |= {"traj": [0, 1, 2, 3, 4], "db": [0, 4], "json": [0, 4], "xsf": [4]}
SUFFIXES = {"proteindatabank": "pdb"}
KEYS = ("charge", "total_charge", "external_field", "potential_points", "dipole", "REF_energy")


def structures():
    """A molecule, an ion, a molecule in a field, a slab and a crystal, all of H and O."""
    X = [molecule("H2O"), molecule("OH"), molecule("H2O2"), molecule("H2O"), bulk("O", "sc", 3.0)]
    X[1].info["charge"] = -1
    X[2].info["external_field"] = np.array([0.0, 0.1, 0.0])
    X[3].set_cell([5.0, 5.0, 9.0])
    X[3].pbc = (True, True, False)
    for i, atoms in enumerate(X):
        atoms.rattle(0.01, seed=i)
        total = atoms.info.get("charge", 0.0)
        atoms.set_array("REF_charges", np.full(len(atoms), total / len(atoms)))
    return X


class Inputs:
    """Makes the inputs and runs them; all files are in one folder.

    Parameters
    ----------
    folder : path
        Folder of the files.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.X = structures()
        model = make_pipeline(
            SOAPFeaturizer(r_cut=2.5, n_max=2, l_max=1, species=["H", "O"]),
            CURSparsifier(n_points=2),
            KQEqRegressor(store_triangles=True),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            charges = [atoms.arrays["REF_charges"] for atoms in self.X]
            self.model = model.fit(self.X, make_targets(charges=charges))
        self.valid, self.path = self.folder / "valid.xyz", self.folder / "damaged.xyz"
        ase.io.write(self.valid, self.X, format="extxyz")
        self.text = self.valid.read_text()
        self.charges = list(self.model.predict(self.X)["charges"])
        self.models = {}
        for name in ("model.skqeq", "model.joblib"):
            if name.endswith("skqeq"):
                skqeq.save(self.model, self.folder / name)
            else:
                joblib.dump(self.model, self.folder / name)
            self.models[name] = (self.folder / name).read_bytes()

    def run(self, i, seed):
        """Make and run input number i; return its kind and its outcome."""
        rng = np.random.default_rng([seed, i])
        kinds = (
            *(self.file_to_loader, self.file_to_command, self.info, self.model_file),
            *(self.odd_file, self.wrong_word, self.other_format, self.output_name),
            *(self.other_program, self.label),
        )
        kind = kinds[i % len(kinds)]
        return kind.__name__, kind(rng)

    def damage_text(self, rng):
        """Write the structure file with random changes."""
        self.path.write_text(damaged(rng, self.text), errors="surrogateescape")

    def frames(self, rng):
        """The lines of every structure, written in an unusual way."""
        lines = self.text.splitlines()
        while lines:
            n = int(lines[0])
            _, comment, *atoms = lines[: n + 2]
            lines = lines[n + 2 :]
            comment = comment.replace("Lattice", pick(rng, CELL_KEYS))
            comment = comment.replace("Properties", pick(rng, ("Properties", "properties")))
            symbols = [pick(rng, SAME[line.split()[0]]) for line in atoms]
            gap = pick(rng, (" ", "\t", "   "))
            rows = [gap.join([s, *a.split()[1:]]) for s, a in zip(symbols, atoms, strict=True)]
            before, after = (pick(rng, fuzz_programs.WORDS) for _ in range(2))
            yield [pick(rng, COUNTS).format(n), f"{before} {comment} {after}", *rows]

    def write_frames(self, rng, frames, suffix):
        """Write structures with blank lines between them, and return the path."""
        newline = pick(rng, ("\n", "\r\n"))
        texts = [newline.join([*frame, ""]) + pick(rng, GAPS) for frame in frames]
        text = pick(rng, ("", "\n", "\ufeff")) + "".join(texts)
        data = (text.rstrip() if rng.integers(2) else text).encode()
        path = self.folder / f"odd{suffix}"
        path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
        return path

    def odd_file(self, rng):
        """Read a valid file that is written in an unusual way: the charges must be the same."""
        suffix = pick(rng, (".xyz", ".XYZ", ".extxyz", ".extXYZ", ".xyz.gz"))
        path = self.write_frames(rng, self.frames(rng), suffix)
        if suffix.endswith(".gz") or rng.integers(2):
            code, message, X = self.predict(path, pick(rng, (".xyz", ".traj", ".db")))
            assert code == 0, f"a valid file was refused: {message}"
            assert not message, f"a valid file gave a warning: {message}"
            charges = [atoms.get_initial_charges() for atoms in X]
        else:
            charges = skqeq.predict_charges(self.model, open_structures(path))
        compare(charges, self.charges)
        return "accepted"

    def wrong_word(self, rng):
        """Read a file with one wrong word: it is refused, or one structure is skipped."""
        frames = list(self.frames(rng))
        i = int(rng.integers(len(frames)))
        row = int(rng.integers(2, len(frames[i])))
        words = frames[i][row].split()
        kind = pick(rng, ("symbol", "number", "missing", "comment"))
        if kind == "comment":
            row, words = 1, [frames[i][1], pick(rng, WRONG[kind])]
        elif kind == "missing":
            words.pop()
        else:
            words[0 if kind == "symbol" else 1] = pick(rng, WRONG[kind])
        frames[i][row] = " ".join(words)
        path = self.write_frames(rng, frames, ".xyz")
        code, message, X = self.predict(path, ".xyz")
        assert code == 2, f"a file with the words {words} was accepted"
        assert f"structure {i}" in message, f"the message does not name structure {i}: {message}"
        code, message, X = self.predict(path, ".xyz", "--skip-errors")
        assert code == 1 and f"structure {i}" in message, f"it was not skipped: {message}"
        compare([a.get_initial_charges() for a in X], self.charges[:i] + self.charges[i + 1 :])
        return "refused"

    def other_format(self, rng):
        """Give a command a file of another format, with or without damage."""
        form = pick(rng, list(FORMATS))
        path = self.folder / f"other.{SUFFIXES.get(form, form)}"
        path.unlink(missing_ok=True)
        atoms = self.X[pick(rng, FORMATS[form])].copy()
        occupancy = pick(rng, (1.0, 0.5, -1.0)) if form == "cif" else 1.0
        atoms.set_array("spacegroup_kinds", np.zeros(len(atoms), dtype=int))
        atoms.info["occupancy"] = {"0": {"O": occupancy}}
        intact = bool(rng.integers(2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ase.io.write(path, atoms, format=form)
        if not intact:
            data = path.read_bytes()
            try:
                path.write_text(damaged(rng, data.decode()), errors="surrogateescape")
            except UnicodeDecodeError:
                path.write_bytes(data[: rng.integers(len(data))])
        code, message, X = self.predict(path, ".xyz")
        if code:
            return refused(message, path.name if "structure 0 (" not in message else "structure 0")
        assert X, "neither an error nor an output"
        if intact and occupancy != 1.0:
            assert "occupancy" in message, "a site that is not occupied fully has no warning"
        for atoms in X:
            assert np.isfinite(atoms.get_initial_charges()).all(), "charges are not finite"
        return "accepted"

    def other_program(self, rng):
        """Predict from a file as another program writes it: the charges must be the same."""
        form = pick(rng, ("pdb", "poscar", "cif"))
        if form == "pdb":
            chosen = rng.integers(0, 2, rng.integers(1, 4)).tolist()  # without a field
            name, text = fuzz_programs.pdb(rng, [self.X[i] for i in chosen])
            expected = [self.charges[i] for i in chosen]
        else:
            atoms = self.X[4]
            name, text, *order = getattr(fuzz_programs, form)(rng, atoms)
            expected = [self.charges[4][order[0]] if order else self.charges[4]]
        (self.folder / name).write_text(text)
        code, message, X = self.predict(self.folder / name, ".xyz")
        assert code == 0, f"a valid file was refused: {message}"
        assert not message, f"a valid file gave a warning: {message}"
        compare([a.get_initial_charges() for a in X], expected, tolerance=5e-3)
        return "accepted"

    def label(self, rng):
        """Collect a label from comment lines: the right number, or an error."""
        target, key, text, expected = fuzz_programs.label(rng)
        frames = list(self.frames(rng))
        for frame in frames:
            frame[1] += f" {text} {pick(rng, fuzz_programs.WORDS)}"
        path = self.write_frames(rng, frames, ".xyz")
        try:
            X = open_structures(path)
            y = skqeq.targets_from_atoms(X, {target: key} if key else [target])
        except ValueError as error:
            assert expected is None, f"the valid label {text!r} was refused: {error}"
            return refused(error, "virial" if key == "virial" else "structure")
        assert expected is not None, f"the label {text!r} was accepted as {y[0]}"
        for found in y[target]:
            assert np.allclose(found, expected, rtol=1e-10), f"{text!r} was read as {found}"
        return "accepted"

    def output_name(self, rng):
        """Write predictions to a new file, to an input, or to a link to an input."""
        name, change = f"out{pick(rng, ENDINGS)}", rng.integers(4)
        out = self.folder / name
        out.unlink(missing_ok=True)
        source = self.valid if change else self.write_frames(rng, self.frames(rng), name[3:])
        if change == 1:
            out.symlink_to(source)
        elif change == 2:
            out.hardlink_to(source)
        before = source.read_bytes()
        command = ["predict", str(self.folder / "model.skqeq"), str(source), "-q", "-o"]
        code, message = run_command([*command, str(out if change else source)])
        assert source.read_bytes() == before, "a command changed its input"
        if change == 3 and code == 0:
            format = {"": None, ".gz": None}.get(out.suffix, out.suffix[1:].lower())
            assert len(ase.io.read(out, ":", format={"xyz": "extxyz"}.get(format, format))) == 5
            return "accepted"
        out.unlink(missing_ok=True)
        return refused(message, name if change else source.name)

    def predict(self, path, suffix, *options):
        """The code, the message and the predicted structures of a command."""
        out = self.folder / f"predicted{suffix}"
        out.unlink(missing_ok=True)
        command = ["predict", str(self.folder / "model.skqeq"), str(path), "-q", "-o", str(out)]
        code, message = run_command([*command, *options])
        assert not code or message, "an error without a message"
        assert code != 2 or not out.exists(), "an error and an output"
        return code, message, list(open_structures(out)) if out.exists() else []

    def file_to_loader(self, rng):
        """Read a damaged structure file, and predict its charges."""
        self.damage_text(rng)
        try:
            X = open_structures(self.path)
            X = [X[i] for i in range(len(X))]
        except ValueError as error:
            return refused(error, str(self.path))
        return self.predicted(X)

    def file_to_command(self, rng):
        """Give a damaged structure file to a command."""
        self.damage_text(rng)
        out, fitted = self.folder / "out.xyz", self.folder / "fitted.skqeq"
        model, path = str(self.folder / "model.skqeq"), str(self.path)
        argv = [
            ["predict", model, path, "-o", str(out), "-q"],
            ["fit", path, "-o", str(fitted), "--targets", "charges", "-q"],
            ["evaluate", model, path],
        ][rng.integers(3)]
        out = fitted if argv[0] == "fit" else out
        out.unlink(missing_ok=True)
        if argv[0] != "evaluate" and rng.integers(2):
            argv.append("--std")
        if argv[0] != "predict" and rng.integers(2):
            argv += ["--unit", f"charges={UNITS[rng.integers(len(UNITS))]}"]
        code, message = run_command(argv)
        if not code:
            assert out.exists() or argv[0] == "evaluate", "neither an error nor an output"
            return "accepted"
        assert message, "an error without a message"
        assert not out.exists(), "an error and an output"
        return "refused"

    def info(self, rng):
        """Predict charges of a structure with invalid values in its ``info``."""
        atoms = self.X[rng.integers(len(self.X))].copy()
        for _ in range(rng.integers(1, 3)):
            value = VALUES[rng.integers(len(VALUES))]
            atoms.info[KEYS[rng.integers(len(KEYS))]] = value
        before = dict(atoms.info)
        outcome = self.predicted([self.X[0], atoms], "structure 1")
        assert all(atoms.info[key] is value for key, value in before.items()), "input was modified"
        return outcome

    def model_file(self, rng):
        """Predict with a damaged model file."""
        name = list(self.models)[rng.integers(2)]
        data = bytearray(self.models[name])
        if name.endswith("skqeq") and rng.integers(2):
            for place in rng.integers(0, len(data), rng.integers(1, 4)):
                data[place] = rng.integers(256)
        else:  # a pickle file is only truncated: changed bytes could run any code
            data = data[: rng.integers(len(data))]
        path = self.folder / f"damaged{Path(name).suffix}"
        path.write_bytes(data)
        out = self.folder / "out.xyz"
        out.unlink(missing_ok=True)
        argv = ["predict", str(path), str(self.valid), "-o", str(out), "-q", "--allow-pickle"]
        code, message = run_command(argv)
        if not code:
            compare([atoms.get_charges() for atoms in ase.io.read(out, ":")], self.charges)
            return "accepted"
        return refused(message, path.name)

    def predicted(self, X, where="structure "):
        """Predict charges and check them; an error must name the place."""
        try:
            charges = skqeq.predict_charges(self.model, X)
        except (ValueError, TypeError) as error:
            return refused(error, where)
        for atoms, q in zip(X, charges, strict=True):
            total = float(atoms.info.get("charge", atoms.info.get("total_charge", 0.0)))
            assert np.isfinite(q).all(), "charges are not finite"
            error = abs(q.sum() - total)
            assert error <= 1e-8 * max(1.0, np.abs(q).max()), "charge is not conserved"
        return "accepted"


def damaged(rng, text):
    """A text with random changes."""
    for _ in range(rng.integers(1, 4)):
        place, change = rng.integers(len(text) + 1), rng.integers(7)
        if change == 0:  # replace a word
            words = text.split(" ")
            words[rng.integers(len(words))] = TOKENS[rng.integers(len(TOKENS))]
            text = " ".join(words)
        elif change == 1:
            text = text[:place]
        elif change == 2:
            text = text[:place] + TOKENS[rng.integers(len(TOKENS))] + text[place:]
        elif change == 3:
            text = text[:place] + text[place + rng.integers(1, 40) :]
        elif change == 4:
            text = text[:place] + chr(rng.integers(1, 256)) + text[place + 1 :]
        elif lines := text.splitlines(keepends=True):  # move a line, or insert a blank line
            line = lines.pop(rng.integers(len(lines))) if change == 5 else "\n"
            lines.insert(rng.integers(len(lines) + 1), line)
            text = "".join(lines)
    return text


def pick(rng, choices):
    """Return one of the choices, drawn at random."""
    return choices[rng.integers(len(choices))]


def compare(charges, expected, tolerance=1e-5):
    """Check that all structures are there, in order, with the same charges."""
    assert len(charges) == len(expected), f"{len(charges)} of {len(expected)} structures"
    for q, q_expected in zip(charges, expected, strict=True):
        assert np.allclose(q, q_expected, atol=tolerance), "the charges are different"


def run_command(argv):
    """Run a command; return its code and what it prints to standard error."""
    with (
        contextlib.redirect_stderr(io.StringIO()) as stderr,
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        warnings.simplefilter("ignore", ResourceWarning)  # ASE keeps damaged trajectories open
        try:
            code = command_line(argv)
        except SystemExit as end:
            code = end.code
    assert argv[0] != "evaluate" or "nan" not in stdout.getvalue(), "an error is NaN"
    return code, stderr.getvalue().strip() + (code if isinstance(code, str) else "")


def refused(error, where):
    """Check that the message of an error names the place."""
    assert where in str(error), f"the message does not name {where}: {error}"
    return "refused"
