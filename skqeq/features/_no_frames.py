"""The refusal of `set_output` by transformers whose output has no form as a table."""

from __future__ import annotations

from typing import NoReturn


class NoFrames:
    """Base class of transformers that return `skqeq.StructureFeatures`."""

    def set_output(self, *, transform: str | None = None) -> NoReturn:
        """Refuse to choose a container for the output.

        Parameters
        ----------
        transform : str, default=None
            Ignored.

        Raises
        ------
        ValueError
            Always.
        """
        name = type(self).__name__
        raise ValueError(
            f"set_output(transform={transform!r}) does not work for {name} and the pipelines that "
            f"contain it: {name} returns StructureFeatures, with one matrix per structure, not a "
            "frame; leave set_output out. sklearn.set_config(transform_output=...) may stay, and "
            f"does not change the output of {name}"
        )
