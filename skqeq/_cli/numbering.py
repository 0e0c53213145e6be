"""Numbers of structures in messages: users count from the beginning of the file."""

import re
import warnings
from contextlib import contextmanager

NUMBERS = re.compile(r"\bstructures? (\d+)(?: and (\d+)\b)?")


class FileNumbers:
    """Replaces indices in a list of structures by indices in the file.

    The two differ if the list is a slice of the file (``train.xyz@800:``) or a block of it.

    Parameters
    ----------
    indices : list of int
        Index in the file of every structure of the list.
    """

    def __init__(self, indices):
        self.indices = indices

    def text(self, message):
        """A message about structures of the list, with their indices in the file."""
        return NUMBERS.sub(self._replace, message)

    def finding(self, finding):
        """The finding of a check of the list, with indices in the file."""
        first = None if finding.first is None else self.indices[finding.first]
        return finding._replace(first=first, advice=self.text(finding.advice))

    @contextmanager
    def messages(self):
        """Use the indices in the file in errors and warnings of the block."""
        show = warnings.showwarning
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *rest, **options: show(
                self.text(str(message)), *rest, **options
            )
            try:
                yield
            except (ValueError, TypeError) as error:
                message = self.text(str(error))
                if message == str(error):
                    raise
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(message) from error

    def _replace(self, match):
        numbers = [int(number) for number in match.groups() if number is not None]
        if max(numbers) >= len(self.indices):
            return match[0]  # not a structure of the list
        return re.sub(r"\d+", lambda number: str(self.indices[int(number[0])]), match[0])
