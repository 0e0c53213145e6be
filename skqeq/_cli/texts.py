"""Long texts of ``skqeq --help`` and of the help of each command."""

TRUST = (
    "A model that was saved as .skqeq is safe to load: no code in the file is executed. Models "
    "that were saved under other names are pickles, which can execute code. They need "
    "--allow-pickle: load only files that you trust."
)
STRUCTURES = (
    "any file that ASE reads; FILE@:100 selects the first 100 structures; - is standard input, "
    "which holds extended xyz"
)
EXAMPLES = {
    "main": """
        skqeq demo
        skqeq check train.xyz
        skqeq fit train.xyz -o model.skqeq --tune 10
        skqeq evaluate model.skqeq test.xyz --plot parity.png
        skqeq predict model.skqeq new.xyz -o charges.xyz
        ase gui charges.xyz        # View > Colors > By initial charge
        """,
    "demo": """
        skqeq demo
        skqeq demo --output figures
        """,
    "check": """
        skqeq check train.xyz
        skqeq check train.xyz --key dipole=dft_dipole --unit dipole=debye
        skqeq check train.xyz --targets energy forces --key forces=gradient \\
            --unit energy=hartree forces=-hartree/bohr
        """,
    "fit": """
        skqeq fit train.xyz -o model.skqeq
        skqeq fit train.xyz -o model.skqeq --tune 10 --group molecule
        skqeq fit train.xyz -o potential.skqeq --targets energy forces --tune 60
        skqeq fit train.xyz -o model.skqeq --search --group molecule
        skqeq fit train.xyz@:800 -o model.skqeq --search-r-cut
        skqeq fit train.xyz -o model.skqeq --targets dipole charges \\
            --key dipole=dft_dipole charges=mulliken --unit dipole=Debye \\
            --sigma dipole=0.01 charges=0.05
        skqeq fit train.xyz -o model.skqeq --targets energy forces dipole --gap --cutoff-width 1 \\
            --radius-scale 0.7
        """,
    "predict": """
        skqeq predict model.skqeq new.xyz -o charges.xyz
        skqeq predict model.skqeq trajectory.traj@::10 -o charges.xyz.gz
        zcat new.xyz.gz | skqeq predict model.skqeq - -o charges.traj --skip-errors
        skqeq predict model.skqeq new.xyz -o charges.xyz --std --interval 0.95
                                                             # after skqeq fit --std
        """,
    "evaluate": """
        skqeq evaluate model.skqeq test.xyz
        skqeq evaluate model.skqeq train.xyz@800:     # after skqeq fit train.xyz@:800
        skqeq evaluate model.skqeq test.xyz --targets dipole --worst 20 --plot parity.png
        """,
    "completion": """
        source <(skqeq completion bash)      # in ~/.bashrc
        source <(skqeq completion zsh)       # in ~/.zshrc
        skqeq completion fish | source       # in ~/.config/fish/config.fish
        """,
}
LABELS = """\
Labels are looked up by the name of the target, such as `dipole` or `REF_dipole`, in calculator
results, columns of atoms and info; use --key for other names. Their units are e*Angstrom for
dipole, e for charges, eV for energy, eV/Angstrom for forces, and eV/Angstrom^3 for stress; use
--unit for other units. The total charge of a structure is `charge` or `total_charge` in info; use
--charge-key for another name."""

RESULTS = """\
The ending of the output decides its format: .xyz or .extxyz (extended xyz, also with .gz, .bz2 or
.xz), .traj (ASE trajectory) or .db (ASE database). The name - writes extended xyz to standard
output. The output has the order, info and cell of the input. In .traj and .db files, columns of
atoms for which ASE has no place are stored in info. Charges and dipoles are
written as results (`charges`, `dipole`), and charges also as `initial_charges`, which the ASE GUI
shows. Models that were trained on energies, forces or stress add `energy`, `forces` and, for
periodic structures, `stress`. If the input has results with the same names, these are labels; they
are renamed to `REF_charges` and so on. The exit code is 1 if structures were skipped."""

# For each command: its summary, the rest of its description, and notes that follow its options.
COMMANDS = {
    "demo": (
        "train a model on the bundled molecules, and draw figures",
        "Takes about a\nminute on two cores.",
        (),
    ),
    "check": (
        "look for mistakes in the structures and labels of a file",
        "Labels may have\nwrong units, signs or origins. The exit code is 1 if there are warnings.",
        (LABELS,),
    ),
    "fit": ("train a model on a file of labelled structures", "", (LABELS, TRUST)),
    "predict": (
        "write structures with predicted charges, dipoles, energies and forces",
        "",
        (RESULTS, TRUST),
    ),
    "evaluate": ("print the errors of a model on labelled structures", "", (LABELS, TRUST)),
    "completion": ("print a script that lets a shell complete commands and options", "", ()),
}
