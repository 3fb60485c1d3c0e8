"""The errors a user can meet; each message names the offending value and what is allowed."""


class IGCError(Exception):
    """Base of every error that the command line prints as one line."""


class SpecError(IGCError, ValueError):
    """A block, a network or a training configuration that cannot exist."""


class DataError(IGCError, ValueError):
    """A data set that is missing, damaged or not what its name says."""


class BackendError(IGCError, RuntimeError):
    """A backend that was asked for and cannot run on this machine."""


class CheckpointError(IGCError, ValueError):
    """A checkpoint that is missing, damaged or of another network."""


class TrainingError(IGCError, ArithmeticError):
    """A run that cannot go on: its loss is no longer a finite number."""
