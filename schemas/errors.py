"""Errors, split by what the caller can do.

After a `ServiceError` a retry may help; retries decide by this type. A `ContractError` needs a change of the input.
Each error also inherits the builtin error that it resembles.
"""


class GalstoreError(Exception):
    """Base class of galstore's errors; the command line prints them as one line."""


class ServiceError(GalstoreError, ConnectionError):
    """Failure of a survey service; a retry may help."""


class ServiceDownError(ServiceError):
    """Failures of a service for many objects in a row; the run stops instead of quarantining them."""


class StoreBusyError(ServiceError, TimeoutError):
    """Lock of the cube that other writers held for longer than the timeout; a retry may help."""


class ContractError(GalstoreError, ValueError):
    """Input that breaks a contract; the message says what was found, what was expected and what to do."""


class RecipeError(ContractError):
    """A recipe has an unknown key or a value out of range."""


class CatalogError(ContractError):
    """A catalog lacks a column, is empty, or holds invalid values."""


class QueryRefusedError(ContractError):
    """The service understood the query and refuses it; a retry gets the same response."""


class StoreError(ContractError):
    """The cube differs from what the caller expects: another layout or scale rule, or a missing level."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """No cube exists at the given path."""


class TrainingError(ContractError):
    """Training cannot start or continue: no labelled rows, too few galaxies, or a diverging loss."""


class WeightsError(ContractError):
    """A file of network weights is missing or has unexpected content."""


class PositionError(ContractError):
    """A position on the sky or a search radius is out of range."""


class FeatureError(ContractError):
    """A view or training set is unknown or has another definition, or a selection is empty."""


class ExportError(ContractError):
    """Nothing to export, an existing target, or a missing library."""
