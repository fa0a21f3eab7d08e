"""Errors that the user can mend. Their messages say what was given, what is expected, and what to do.

A command ends with the message of a :class:`UserError` alone; any other exception keeps its traceback. Each class is
also an exception of the kind that Python uses for such a fault, so that callers may catch either.
"""


class UserError(Exception):
    """Base of the errors whose message is all that the user needs."""


class ConfigError(UserError, RuntimeError, ValueError):
    """A config, or an option that changes it, that cannot be used."""


class UnsupportedConfigError(ConfigError, NotImplementedError):
    """A config whose settings do not go together."""


class DataError(UserError, RuntimeError):
    """A data set, folder or image that is missing, incomplete or not what the config expects."""


class DataNotFoundError(DataError, FileNotFoundError):
    """Data, such as the log of a training, that are not there."""


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be read, is damaged, or does not fit the model."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """A checkpoint that is not there."""


class CheckpointSizeError(CheckpointError):
    """A checkpoint of another size of the network than the model's.

    Attributes:
        network: The class of the backbone, or None.
        size: The arguments that make it of the checkpoint's size.
        model: Name of the class of the whole model; empty where the checkpoint is loaded into a backbone alone.
    """

    def __init__(self, message: str, network: type | None = None, size: dict | None = None, model: str = '') -> None:
        super().__init__(message)
        self.network, self.size, self.model = network, size or {}, model


class PlugError(UserError, ValueError):
    """A rule that cannot be applied to a model."""


class ExportError(UserError, ValueError):
    """A model that cannot be exported, or an exported file that disagrees with the model."""


class NonFiniteError(UserError, RuntimeError):
    """A loss, gradient or parameter that is not finite."""


class MissingPackageError(UserError, ImportError):
    """A package that is missing, or that is installed and cannot be imported."""


class OutputError(UserError, OSError, ValueError):
    """A file or folder that cannot be written; what was there before stays."""


class OutputFolderNotFoundError(OutputError, FileNotFoundError):
    """A folder to write into that is not there."""


class TuningFileError(UserError, ValueError):
    """A file of measured choices that cannot be read."""
