"""Graphs of heavy atoms: a number that is equal for molecules with equal graphs."""

from __future__ import annotations

import hashlib
import re
from typing import Any

# An atom in brackets, another atom, a ring closure, a bond, or a branch.
TOKENS = re.compile(r"\[\d*([A-Za-z][a-z]?)[^]]*]|(Cl|Br|[A-Za-z])|%?(\d\d?)|[-=#:/\\]|([().])")
NO_ATOM = -1


def graph_number(smiles: str) -> int:
    """Number of the graph of elements and bonds, without bond orders, charges and hydrogen atoms.

    Equal graphs have equal numbers, whatever the order of their atoms. Different graphs have
    different numbers unless colour refinement cannot distinguish them: of 73,924 numbers in QM9,
    200 belong to more than one graph.

    Parameters
    ----------
    smiles : str
        SMILES of the molecule.

    Returns
    -------
    number : int
        Non-negative, below 2**48, and the same in all processes.

    Raises
    ------
    ValueError
        If the SMILES cannot be read.

    Notes
    -----
    Colour refinement: the colour of an atom is its element at first. In each step, the new colour
    is the rank of the old colour together with the sorted colours of the neighbours. The number is
    a hash of the sorted colours of all steps.

    Examples
    --------
    >>> from skqeq.datasets._graphs import graph_number
    >>> graph_number("CCO") == graph_number("O=CC") != graph_number("COC")
    True
    """
    elements, neighbors = heavy_graph(smiles)
    colors: list[Any] = list(elements)
    history = []
    while True:
        signatures = [
            (colors[i], sorted([colors[j] for j in near])) for i, near in enumerate(neighbors)
        ]
        history.append(sorted(signatures))
        ranks = {repr(x): rank for rank, x in reversed(list(enumerate(history[-1])))}
        if len(ranks) == len(set(colors)):
            break
        colors = [ranks[repr(x)] for x in signatures]
    digest = hashlib.blake2b(repr(history).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")


def heavy_graph(smiles: str) -> tuple[list[str], list[list[int]]]:
    """Elements and bonds of the heavy atoms of a molecule.

    Parameters
    ----------
    smiles : str
        SMILES of the molecule.

    Returns
    -------
    elements : list of str
        Element of each heavy atom.
    neighbors : list of list of int
        Heavy atoms that are bonded to each heavy atom.

    Raises
    ------
    ValueError
        If the SMILES cannot be read.

    Examples
    --------
    >>> from skqeq.datasets._graphs import heavy_graph
    >>> heavy_graph("[NH3+]CC")
    (['N', 'C', 'C'], [[1], [0, 2], [1]])
    """
    elements: list[str] = []
    bonds: list[tuple[int, int]] = []
    branches: list[int] = []
    rings: dict[str, int] = {}
    last, place = NO_ATOM, 0
    while place < len(smiles):
        match = TOKENS.match(smiles, place)
        if match is None:
            raise ValueError(f"{smiles!r} cannot be read at {smiles[place:]!r}")
        place = match.end()
        bracket, plain, ring, branch = match.groups()
        if bracket or plain:
            bonds.append((last, len(elements)))
            last = len(elements)
            elements.append((bracket or plain).capitalize())
        elif ring:
            # Without %, each digit is a ring closure of its own.
            for label in [ring] if match[0].startswith("%") else ring:
                if label in rings:
                    bonds.append((rings.pop(label), last))
                else:
                    rings[label] = last
        elif branch == "(":
            branches.append(last)
        elif branch == ")":
            if not branches:
                raise ValueError(f"{smiles!r} closes a branch that is not open")
            last = branches.pop()
        elif branch == ".":
            last = NO_ATOM
    if rings or branches or not elements:
        raise ValueError(f"{smiles!r} is not a complete SMILES")
    heavy = [i for i, element in enumerate(elements) if element != "H"]
    index = {i: k for k, i in enumerate(heavy)}
    neighbors: list[list[int]] = [[] for _ in heavy]
    for i, j in bonds:
        if i in index and j in index:
            neighbors[index[i]].append(index[j])
            neighbors[index[j]].append(index[i])
    return [elements[i] for i in heavy], neighbors
