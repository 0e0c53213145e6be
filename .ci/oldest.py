"""Print the oldest declared version of every dependency of pyproject.toml, for pip's -c."""

import re
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"].values()
for requirement in sum(extras, project["dependencies"]):
    found = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", requirement.strip())
    if found:
        print(f"{found[1]}=={found[2]}")
