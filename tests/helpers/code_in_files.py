"""An object that runs code while it is unpickled."""
import os


class Mkdir:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path), )
