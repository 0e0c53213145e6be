"""Commands of `skqeq.cli`.

``parser``, ``options`` and ``texts`` import nothing of the package that takes long. The module of a
command is imported when the command runs.
"""
