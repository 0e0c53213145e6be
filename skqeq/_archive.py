"""Zip archives of unknown origin: read within bounds, and checked before skops reads them.

`persistence.load` gives files of strangers to skops, which executes no code from them. But a small
file could still need any amount of memory or time: compressed members can expand to a thousand
times their size, and lists that contain each other several times are checked by skops once per
path, whose number is exponential. This module refuses everything that `persistence.save` never
writes and that could make reading expensive.
"""

from __future__ import annotations

import io
import math
import os
import stat
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._typing import PathType

__all__ = ["SchemaCheck", "check_regular", "limit_of", "pack", "read_member", "read_members"]

# The members of an archive together may have this many bytes, plus this multiple of its size.
ALLOWANCE, RATIO = 2**24, 50
# Nested lists and dicts in a schema; a pipeline in a search has about 30.
DEPTH = 200
# Kinds of nodes of skops that fitted models need. Others call constructors, or unpack archives.
LOADERS = {
    *("DTypeNode", "DictNode", "FunctionNode", "JsonNode", "ListNode", "MaskedArrayNode"),
    *("NdArrayNode", "ObjectNode", "RandomStateNode", "SetNode", "SliceNode", "TupleNode"),
    "TypeNode",
}


def check_regular(path: PathType) -> None:
    """Refuse pipes and devices, which would be read for ever.

    Parameters
    ----------
    path : str or path
        The file; of a symbolic link, the file to which it points is checked.

    Raises
    ------
    ValueError
        If the path is neither a file nor a folder.
    OSError
        If there is no such file.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError(f"{path} is not a regular file")


def limit_of(n_bytes: int) -> int:
    """Largest total size of the members of an archive.

    Parameters
    ----------
    n_bytes : int
        Size of the archive.

    Returns
    -------
    limit : int
        Number of bytes.
    """
    return ALLOWANCE + RATIO * n_bytes


def read_member(archive: zipfile.ZipFile, name: str, limit: float) -> bytes:
    """Read a member of an archive.

    Parameters
    ----------
    archive : ZipFile
        Open for reading.
    name : str
        Name of the member.
    limit : float
        Largest number of bytes.

    Returns
    -------
    content : bytes

    Raises
    ------
    ValueError
        If the member is larger than the limit, larger than the archive says, or compressed in
        another way than by deflate.
    KeyError
        If there is no such member.
    """
    member = archive.getinfo(name)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in an unknown way")
    if member.file_size > limit:
        raise ValueError(f"{name} has {member.file_size} bytes, more than a model file can have")
    with archive.open(member) as file:
        # `read()` without a size would expand everything, whatever size the archive states.
        return file.read(member.file_size + 1)


def read_members(data: bytes, limit: float = math.inf) -> dict[str, bytes]:
    """Read all members of an archive.

    Parameters
    ----------
    data : bytes
        The archive.
    limit : float, default=inf
        Largest total number of bytes of all members.

    Returns
    -------
    members : dict of {str: bytes}

    Raises
    ------
    ValueError
        As in `read_member`, and if two members have the same name.
    """
    members: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            if name in members:
                raise ValueError(f"two members have the name {name}")
            members[name] = read_member(archive, name, limit)
            limit -= len(members[name])
    return members


def pack(members: Mapping[str, bytes], *, compress: bool) -> bytes:
    """Write an archive.

    Parameters
    ----------
    members : dict of {str: bytes}
        Content by name.
    compress : bool
        Whether to compress, unless the archive could then not be read again within its limit.

    Returns
    -------
    data : bytes
    """
    buffer = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    data = buffer.getvalue()
    if compress and sum(map(len, members.values())) > limit_of(len(data)):
        return pack(members, compress=False)
    return data


class SchemaCheck:
    """Refuses what `save` never writes and what can be expensive to read.

    skops writes a shared object wherever it occurs, with the same number ``__id__``, and reads
    later nodes of a number as references to the first one. In a file of skops, all nodes of a
    number have the same size. The paths through the references are then not more than the items of
    the file.

    Parameters
    ----------
    members : dict of {str: bytes}
        All members of the archive.
    own : set of str
        Names of types that only occur as objects, whose constructor is not called.
    """

    def __init__(self, members: Mapping[str, bytes], own: set[str]) -> None:
        self._members, self._own = members, own
        self._sizes: dict[int, int] = {}

    def check(self, item: Any, depth: int = 0) -> int:
        """Check an item of the schema, and all items below it.

        Parameters
        ----------
        item : dict or list
            Content of ``schema.json``, or a part of it.
        depth : int, default=0
            Number of items around this one.

        Returns
        -------
        size : int
            Number of dicts and lists.

        Raises
        ------
        ValueError
            If the schema is nested too deeply, if a node is of an unknown kind, if a node has no
            number, if two nodes of a number differ in size, or if a member is not an array of the
            stated size.
        """
        if depth > DEPTH:
            raise ValueError(f"more than {DEPTH} levels of objects")
        items = item.values() if isinstance(item, dict) else item
        size = 1 + sum([self.check(x, depth + 1) for x in items if isinstance(x, (dict, list))])
        if isinstance(item, dict) and not {"__loader__", "__id__"}.isdisjoint(item):
            self._check_node(item, size)
        return size

    def _check_node(self, node, size):
        number, loader = node.get("__id__"), node.get("__loader__")
        name = f"{node.get('__module__')}.{node.get('__class__')}"
        if loader not in LOADERS or (name in self._own and loader != "ObjectNode"):
            raise ValueError(f"it holds a {loader} of {name}")
        if type(number) is not int or number <= 0:
            raise ValueError(f"a {name} has the number {number!r}")
        if self._sizes.setdefault(number, size) != size:
            raise ValueError(f"two objects have the number {number}")
        if "file" in node:
            if loader != "NdArrayNode" or node["file"] != f"{number}.npy":
                raise ValueError(f"object {number} names the member {node['file']!r}")
            _check_array(name, self._members[node["file"]])


def _check_array(name, content):
    """Compare the shape that an array states with its size, before memory is allocated for it."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    header = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}[version]
    shape, _, dtype = getattr(np.lib.format, header)(file)
    n_bytes = math.prod(shape) * dtype.itemsize
    if not dtype.itemsize or file.tell() + n_bytes != len(content):
        raise ValueError(f"an array of shape {shape} has {len(content) - file.tell()} bytes")
    if name != "numpy.ndarray" and shape:
        raise ValueError(f"a {name} of shape {shape}")
