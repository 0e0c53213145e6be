"""Reads models in the format of skops, and nothing else.

`persistence.load` reads files of strangers, so that this reader is strict. It knows the few kinds
of nodes and types that fitted models need, checks all of them before it makes any object, and calls
nothing but these types. It makes an object that occurs several times only once. skops itself would
follow every path to such an object, and their number can be exponential. skops also takes a second
to import, because it imports all of scikit-learn.
"""

from __future__ import annotations

import builtins
import io
import json
import math
from collections import OrderedDict
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from ._counts import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ModelReader"]

# Nested lists and dicts in a schema; a pipeline in a search has about 30.
DEPTH = 200
# Bytes of a schema; an object takes about 200. Python needs up to 25 times as much memory for it.
LARGEST_SCHEMA = 2**25
CONTAINERS = {
    "ListNode": {"builtins.list": list},
    "TupleNode": {"builtins.tuple": tuple},
    "SetNode": {"builtins.set": set},
    "DictNode": {"builtins.dict": dict, "collections.OrderedDict": OrderedDict},
}
ARRAYS: dict[str, Any] = {f"numpy.{cls.__name__}": cls for cls in set(np.sctypeDict.values())}
ARRAYS["numpy.ndarray"] = np.ndarray
NAMES = ("bool", "complex", "dict", "float", "int", "list", "set", "str", "tuple")
KEYS = {f"builtins.{name}": getattr(builtins, name) for name in NAMES} | ARRAYS
# Other kinds of nodes, and the only type of each.
OTHERS = {
    "DTypeNode": "numpy.dtype",
    "MaskedArrayNode": "numpy.ma.MaskedArray",
    "RandomStateNode": "numpy.random.mtrand.RandomState",
    "SliceNode": "builtins.slice",
}


class ModelReader:
    """Makes the object that a file of skops describes.

    Parameters
    ----------
    members : dict of {str: bytes}
        Members of the archive.
    types : dict of {str: str}
        Types that objects may have besides estimators of scikit-learn: names in the file, and names
        from which they are imported.

    Attributes
    ----------
    objects : list of object
        The estimators and the objects of `types` that `read` has made.

    Examples
    --------
    >>> import json
    >>> from skqeq._reader import ModelReader
    >>> number = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode"}
    >>> schema = number | {"content": "0.5", "is_json": True, "__id__": 7}
    >>> ModelReader({"schema.json": json.dumps(schema).encode()}, {}).read()
    0.5
    """

    def __init__(self, members: Mapping[str, bytes], types: Mapping[str, str]) -> None:
        self._members, self._types = members, types
        schema = members["schema.json"]
        if len(schema) > LARGEST_SCHEMA:
            raise ValueError(
                f"the description of its objects has {len(schema)} bytes, more than "
                f"{LARGEST_SCHEMA}"
            )
        self._schema = json.loads(schema)
        self.objects: list[Any] = []
        self._made: dict[int, Any] = {}  # objects by number; None while they are made
        self._sizes: dict[int, int] = {}
        self._unknown: set[str] = set()

    def unknown_types(self) -> list[str]:
        """Names of types that `read` would refuse.

        Returns
        -------
        names : list of str
            Sorted.

        Raises
        ------
        ValueError
            If the schema is nested too deeply, or if numbers of objects are not valid.
        """
        self._check(self._schema, 0)
        return sorted(self._unknown)

    def _check(self, item, depth):
        """Check an item of the schema and all items below it; return their number."""
        if depth > DEPTH:
            raise ValueError(f"it holds more than {DEPTH} levels of objects")
        items = item.values() if isinstance(item, dict) else item
        size = 1 + sum([self._check(x, depth + 1) for x in items if isinstance(x, (dict, list))])
        if isinstance(item, dict) and "__loader__" in item:
            number = item.get("__id__")
            if type(number) is not int or number <= 0:
                raise ValueError(f"an object has the number {number!r}")
            # skops writes an object as often as it occurs. Otherwise a small file could hold a
            # list with more items than any program could visit.
            if self._sizes.setdefault(number, size) != size:
                raise ValueError(f"two objects have the number {number}")
            if not self._known(item):
                self._unknown.add(_name(item))
        return size

    def _known(self, node):
        loader, name = node["__loader__"], _name(node)
        if loader == "JsonNode":
            return True
        if loader == "ObjectNode":
            return name in self._types or _sklearn_estimator(name) is not None
        if loader in CONTAINERS:
            return name in CONTAINERS[loader]
        if loader in ("NdArrayNode", "TypeNode"):
            return name in (ARRAYS if loader == "NdArrayNode" else KEYS)
        return OTHERS.get(loader) == name

    def read(self) -> Any:
        """Make the object.

        Returns
        -------
        model : object

        Raises
        ------
        ValueError
            If the file holds unknown types, names them; other exceptions of any type if the file
            is not valid.
        """
        unknown = self.unknown_types()
        if unknown:
            raise ValueError(f"it holds {', '.join(unknown)}")
        return self._make(self._schema)

    def _make(self, node):
        number, loader = node["__id__"], node["__loader__"]
        if number not in self._made:
            self._made[number] = None
            made = getattr(self, f"_make_{loader}")(node)
            # In a list, because None is an object too.
            self._made[number] = [made]
        if self._made[number] is None:
            raise ValueError(f"object {number} contains itself")
        return self._made[number][0]

    def _make_JsonNode(self, node):
        return json.loads(node["content"])

    def _make_TypeNode(self, node):
        return KEYS[_name(node)]

    def _make_ListNode(self, node):
        return CONTAINERS[node["__loader__"]][_name(node)](map(self._make, node["content"]))

    _make_TupleNode = _make_SetNode = _make_ListNode

    def _make_DictNode(self, node):
        result = CONTAINERS["DictNode"][_name(node)]()
        # Keys are strings in JSON.
        for cls, (key, value) in zip(
            self._make(node["key_types"]), node["content"].items(), strict=True
        ):
            result[cls(key)] = self._make(value)
        return result

    def _make_NdArrayNode(self, node):
        if node["type"] == "json":
            array = np.empty(len(node["content"]), dtype=object)
            if self._make(node["shape"]) != array.shape:
                raise ValueError("an array of objects is not one-dimensional")
            array[:] = [None] * len(array)
            for i, item in enumerate(node["content"]):
                array[i] = self._make(item)
            return array
        if node["file"] != f"{node['__id__']}.npy":
            raise ValueError(f"object {node['__id__']} names the member {node['file']}")
        array = read_array(self._members[node["file"]])
        name = _name(node)
        if name == "numpy.ndarray":
            return array
        if array.shape:
            raise ValueError(f"a {name} has the shape {array.shape}")
        return ARRAYS[name](array)

    def _make_MaskedArrayNode(self, node):
        return np.ma.MaskedArray(*(self._make(node["content"][key]) for key in ("data", "mask")))

    def _make_DTypeNode(self, node):
        return self._make(node["content"]).dtype

    def _make_SliceNode(self, node):
        return slice(*(node["content"][key] for key in ("start", "stop", "step")))

    def _make_RandomStateNode(self, node):
        state = np.random.RandomState()
        state.set_state(self._make(node["content"]))
        return state

    def _make_ObjectNode(self, node):
        cls = _sklearn_estimator(_name(node))
        if cls is None:
            module, _, attribute = self._types[_name(node)].rpartition(".")
            cls = getattr(import_module(module), attribute)
        instance = cls.__new__(cls)
        state = self._make(node["content"]) if "content" in node else None
        if hasattr(instance, "__setstate__") and state is not None:
            instance.__setstate__(state)
        elif state is not None:
            instance.__dict__.update(state)
        self.objects.append(instance)
        return instance


def _name(node):
    return f"{node.get('__module__')}.{node.get('__class__')}"


def _sklearn_estimator(name: str) -> Callable[..., Any] | None:
    """An estimator of scikit-learn by its name, or None."""
    import sklearn
    from sklearn.base import BaseEstimator

    parts = name.split(".")
    if parts[0] != "sklearn" or len(parts) < 3 or "tests" in parts:
        return None
    if parts[1] not in sklearn.__all__ or not all(part.isidentifier() for part in parts):
        return None
    try:
        cls = getattr(import_module(".".join(parts[:-1])), parts[-1], None)
    except ImportError:
        return None
    return cls if isinstance(cls, type) and issubclass(cls, BaseEstimator) else None


def read_array(content: bytes) -> Any:
    """Read an array in the format of NumPy.

    Parameters
    ----------
    content : bytes
        A file of `numpy.save`.

    Returns
    -------
    array : ndarray

    Raises
    ------
    ValueError
        If the shape of the array does not agree with its size. This is checked before memory is
        allocated.
    """
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    header = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}[version]
    shape, _, dtype = getattr(np.lib.format, header)(file)
    n_bytes = math.prod(shape) * dtype.itemsize
    if not dtype.itemsize or file.tell() + n_bytes != len(content):
        raise ValueError(
            f"an array of shape {shape} has {counted(len(content) - file.tell(), 'byte')}"
        )
    file.seek(0)
    return np.load(file, allow_pickle=False)
