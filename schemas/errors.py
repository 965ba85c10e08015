"""Errors, split by what the caller can do about them.

`ServiceError`: somebody else's service failed; trying again may help, and retries decide by this type.
`ContractError`: what was handed in is not what was agreed; it must be mended before another try.
Each error also inherits the builtin that it resembles.
"""


class GalstoreError(Exception):
    """Base of every error that galstore raises on purpose; the command line prints it as one line."""


class ServiceError(GalstoreError, ConnectionError):
    """A survey service did not answer as it should; trying again may help."""


class ServiceDownError(ServiceError):
    """A service fails for one object after the other; the run stops instead of quarantining the survey."""


class StoreBusyError(ServiceError, TimeoutError):
    """Other writers kept the cube busy for longer than this one waits; trying again may help."""


class ContractError(GalstoreError, ValueError):
    """The input breaks a contract; the message says what was got, what was expected and what to do."""


class RecipeError(ContractError):
    """A recipe has an unknown key or a value out of range."""


class CatalogError(ContractError):
    """A catalog lacks a column, is empty, or holds values that cannot be what they claim to be."""


class QueryRefusedError(ContractError):
    """The service understood the query and refuses it; sending it again gets the same answer."""


class StoreError(ContractError):
    """The cube is not what the caller takes it for (another layout, another scale rule, no such level)."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no cube at this place."""


class TrainingError(ContractError):
    """Training cannot start or go on: no labelled rows, too few galaxies, or a diverging loss."""


class WeightsError(ContractError):
    """A file of network weights is missing, or is not the file it should be."""


class PositionError(ContractError):
    """A place on the sky or a radius around it is out of range."""


class FeatureError(ContractError):
    """No such view or training set, another definition under the same name, or nothing left of a selection."""


class ExportError(ContractError):
    """Nothing to export, a place that is not empty, or a library that the format needs and that is not installed."""
