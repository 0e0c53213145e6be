"""Zip archives of unknown origin, read within bounds.

Compressed members can expand to a thousand times their size, and need not have the size that the
archive states. A pipe or a device never ends.
"""

from __future__ import annotations

import io
import math
import os
import stat
import zipfile
from typing import TYPE_CHECKING

from ._counts import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._typing import PathType

__all__ = ["check_regular", "limit_of", "pack", "read_member", "read_members"]

# The members of an archive together may have this many bytes, plus this multiple of its size.
ALLOWANCE, RATIO = 2**24, 50


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
        raise ValueError(
            f"{name} has {counted(member.file_size, 'byte')}, more than a model file can have"
        )
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
