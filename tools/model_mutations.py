"""Mutations of model files, for fuzz_models.py.

A model file is a zip archive with a checksum and the members of a second archive: a schema in JSON,
and arrays. Mutations of the outer archive are mostly found by the checksum. For all other mutations
a new checksum is computed, as an attacker would.
"""

import copy
import hashlib
import io
import json
import struct
import warnings
import zipfile

import numpy as np

SCHEMA = "schema.json"
# Names of types and kinds of nodes, some of which execute code if they are called.
MODULES = ("builtins", "os", "posix", "subprocess", "numpy", "skqeq", "sklearn.pipeline", "joblib")
CLASSES = ("eval", "system", "Popen", "ndarray", "dict", "list", "str", "Pipeline", "load", "slice")
LOADERS = (
    *("JsonNode", "ListNode", "TupleNode", "SetNode", "DictNode", "NdArrayNode", "TypeNode"),
    *("ObjectNode", "FunctionNode", "MethodNode", "PartialNode", "ReduceNode", "DTypeNode"),
    *("OperatorFuncNode", "SliceNode", "RandomStateNode", "MaskedArrayNode", "BytesNode", "check"),
)
SCALARS = ("0", "-1", "7", "1e300", "NaN", "null", "true", '"x"', "[1]", "{}", "10000000", "{")
HOSTILE = (None, 0, -1, 2**63, 1e308, "", "x", "../x", [], {}, [[]], True, "__class__")
SIZES = (0, 1, 2**31 - 1, 2**32 - 2)


def flip_bytes(rng, data):
    """Change some bytes."""
    data = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, 5)):
        data[place] = rng.integers(256)
    return bytes(data)


def truncate(rng, data):
    """Remove the end, the beginning, or a part."""
    i, j = sorted(rng.integers(0, len(data), 2))
    return (data[:i], data[j:], data[:i] + data[j:])[rng.integers(3)]


def concatenate(rng, data):
    """Add bytes, or the file itself, before or after the file."""
    other = (rng.bytes(50), data, bytes(1000))[rng.integers(3)]
    return (data + other, other + data)[rng.integers(2)]


def change_header(rng, data):
    """Change a number in a header of a zip archive, such as a size or the kind of compression."""
    data = bytearray(data)
    starts = {b"PK\x03\x04": (8, 14, 18, 22, 26), b"PK\x01\x02": (10, 16, 20, 24, 42)}
    headers = [(i, key) for key in starts for i in find_all(data, key)]
    start, key = headers[rng.integers(len(headers))]
    struct.pack_into("<I", data, start + pick(rng, starts[key]), pick(rng, SIZES))
    return bytes(data)


def find_all(data, key):
    """Positions of a key in bytes."""
    place = data.find(key)
    while place >= 0:
        yield place
        place = data.find(key, place + 1)


BYTES = (flip_bytes, truncate, concatenate, change_header)


def change_about(rng, about):
    """Change the information about a file."""
    about[pick(rng, list(about))] = pick(rng, (*HOSTILE, 6, 5, 7))


def change_node(rng, schema):
    """Change the type or the kind of a node, or any of its values."""
    node = pick(rng, nodes(schema))
    key = pick(rng, list(node))
    values = {"__class__": CLASSES, "__module__": MODULES, "__loader__": LOADERS}.get(key, HOSTILE)
    node[key] = pick(rng, values)


def change_type(rng, schema):
    """Change module, class and kind of a node, so that they fit together more often."""
    node, other = pick(rng, nodes(schema)), pick(rng, nodes(schema))
    for key in ("__class__", "__module__", "__loader__"):
        node[key] = other[key]


def share_numbers(rng, schema):
    """Give a node the number of another node."""
    node, other = pick(rng, nodes(schema)), pick(rng, nodes(schema))
    node["__id__"] = other["__id__"]


def change_scalar(rng, schema):
    """Change a number, a text or a truth value."""
    pick(rng, [node for node in nodes(schema) if node["__loader__"] == "JsonNode"])["content"] = (
        pick(rng, SCALARS)
    )


def exchange_nodes(rng, schema):
    """Put a copy of a node, perhaps one that contains it, in place of another node."""
    node, other = pick(rng, nodes(schema)), copy.deepcopy(pick(rng, nodes(schema)))
    node.clear()
    node.update(other)


def delete_key(rng, schema):
    """Remove a key of a node, or a key or an item of its content."""
    node = pick(rng, nodes(schema))
    content = node.get("content")
    if isinstance(content, (dict, list)) and content and rng.integers(2):
        del content[pick(rng, list(content)) if isinstance(content, dict) else -1]
    else:
        del node[pick(rng, list(node))]


def repeat_items(rng, schema):
    """Repeat the items of a list very often, with the same or with other numbers."""
    lists = [node for node in nodes(schema) if isinstance(node.get("content"), list)]
    content = pick(rng, lists)["content"]
    content *= int(pick(rng, (2, 50, 1000)))


def nest(rng, schema):
    """Put a node into many lists that each contain the one below once or twice."""
    node = pick(rng, nodes(schema))
    inner, twice = dict(node), rng.integers(2)
    for i in range(pick(rng, (3, 8) if twice else (3, 100, 300))):
        number = int(pick(rng, (10**9 + i, node["__id__"])))
        inner = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode"} | {
            "__id__": number,
            "content": [inner] * (1 + int(twice)),
        }
    node.clear()
    node.update(inner)


SCHEMAS = (
    *(change_node, change_type, share_numbers, change_scalar, exchange_nodes, delete_key),
    *(repeat_items, nest),
)


def change_array(rng, content):
    """Replace an array by another one of an unusual size, type or content."""
    kind = rng.integers(6)
    if kind == 0:  # another shape in the header, of the same length
        return content.replace(b"(", b"(9", 1)
    if kind == 1:
        return content.replace(b"'<f8'", b"'|O8'", 1).replace(b"'<i8'", b"'|O8'", 1)
    if kind == 2:
        return flip_bytes(rng, content)
    array = np.load(io.BytesIO(content))
    if kind == 3:
        array = array.ravel()[: rng.integers(array.size + 1)]
    elif kind == 4:
        array = np.full_like(array, pick(rng, (0, -1, 10**9)) if array.dtype != "U" else 0)
    else:
        array = np.zeros(pick(rng, (0, 1, 10**6)), pick(rng, ("f8", "i8", "U3", "c16", "?")))
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def pick(rng, items):
    """A random item of a sequence."""
    return items[rng.integers(len(items))]


def nodes(schema):
    """All nodes of a schema."""
    found, items = [], [schema]
    while items:
        item = items.pop()
        if isinstance(item, dict):
            if "__loader__" in item:
                found.append(item)
            items += item.values()
        elif isinstance(item, list):
            items += item
    return found


class ModelFile:
    """The parts of a model file.

    Parameters
    ----------
    data : bytes
        A file that `skqeq.save` has written.
    """

    def __init__(self, data):
        self.data = data
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            self.about = json.loads(archive.read("about.json"))
            self.inner = archive.read("model.skops")
        with zipfile.ZipFile(io.BytesIO(self.inner)) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}

    def mutate(self, rng):
        """Return the name of a mutation, and the bytes of a mutated file."""
        kinds = (self.outer, self.about_, self.inner_, self.array, self.repeated, self.bomb)
        kinds += (self.schema,) * 6
        return pick(rng, kinds)(rng)

    def outer(self, rng):
        mutation = pick(rng, BYTES)
        return f"outer {mutation.__name__}", mutation(rng, self.data)

    def inner_(self, rng):
        mutation = pick(rng, BYTES)
        return f"inner {mutation.__name__}", self.file(mutation(rng, self.inner))

    def about_(self, rng):
        about = dict(self.about)
        change_about(rng, about)
        return "about", pack({"about.json": json.dumps(about).encode(), "model.skops": self.inner})

    def array(self, rng):
        members = dict(self.members)
        name = pick(rng, [name for name in members if name != SCHEMA])
        members[name] = change_array(rng, members[name])
        return "array", self.file(pack(members))

    def schema(self, rng):
        schema, mutation = json.loads(self.members[SCHEMA]), pick(rng, SCHEMAS)
        # The encoder of JSON has a limit of about 500 lists in lists.
        for _ in range(1 if mutation is nest else rng.integers(1, 3)):
            mutation(rng, schema)
        members = self.members | {SCHEMA: json.dumps(schema).encode()}
        return f"schema {mutation.__name__}", self.file(pack(members))

    def repeated(self, rng):
        """Members that occur twice, or that no object names."""
        file = io.BytesIO(self.inner)
        with zipfile.ZipFile(file, "a") as archive:
            name = pick(rng, [*self.members, "other", "../other"])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the name exists already
                archive.writestr(name, pick(rng, (*self.members.values(), b"")))
        return "repeated member", self.file(file.getvalue())

    def bomb(self, rng):
        """A member that expands to many times its size."""
        name = pick(rng, [*self.members, "other"])
        size = pick(rng, (10**5, 10**6, 10**7, 2 * 10**8 if rng.random() < 0.1 else 3 * 10**7))
        members = self.members | {name: bytes(size)}
        return "expanding member", self.file(pack(members))

    def file(self, inner):
        """A model file with other content, and the right checksum."""
        about = self.about | {"sha256": hashlib.sha256(inner).hexdigest()}
        return pack({"about.json": json.dumps(about).encode(), "model.skops": inner}, stored=True)


def pack(members, *, stored=False):
    """A zip archive with the members."""
    file = io.BytesIO()
    kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()
