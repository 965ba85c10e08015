"""Scoring at length: a model or an ensemble, and blocks of images that are read ahead of it.

Memory holds the blocks that are under way, whatever their number.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from numpy.typing import NDArray

from modeling.models.model import Model
from modeling.scoring.predict import Prediction, combine_predictions, predict
from schemas.cutouts import CutoutScale, require_same_scale
from schemas.errors import WeightsError

READ_AHEAD = 3
"""Blocks that are read or wait while the network has one: 150 MB at 128 px."""

READING_THREADS = 2
"""Decoding gives the interpreter's lock away."""

_Piece = TypeVar("_Piece")
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A model, or an ensemble of several, and how images are scored.

    Attributes
    ----------
    predictions_id
        Under which predictions are kept: the model's id, or the ensemble's.
    members
        Of the ensemble, in the order of their ids; one model alone is the only member.
    views, batch_size, device
        As of `predict`.
    """

    predictions_id: str
    members: tuple[Model, ...]
    views: Literal[1, 8] = 8
    batch_size: int = 256
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        _check_members(self.members)

    @property
    def first(self) -> Model:
        """The member that says what all have in common: target, level, bands, scale."""
        return self.members[0]

    @property
    def level(self) -> int:
        """Side of the images that are read, px."""
        return self.first.config.level

    def require_scale(self, scale: CutoutScale) -> None:
        """Refuse cutouts of another scale rule than a member was trained on: see `Model.require_scale`."""
        for member in self.members:
            member.require_scale(scale)

    def predict(self, pixels: NDArray[Any]) -> Prediction:
        """Score images, (object, y, x, band) counts at the members' level: see `predict`, `combine_predictions`."""
        return combine_predictions(
            [
                predict(member, pixels, views=self.views, batch_size=self.batch_size, device=self.device)
                for member in self.members
            ]
        )


def _check_members(members: Sequence[Model]) -> None:
    if not members:
        raise WeightsError("an ensemble needs members: name at least one model")
    ids = [one.config.model_id for one in members]
    if len(set(ids)) < len(ids):
        raise WeightsError(f"models {', '.join(ids)}: an ensemble names each model once")
    first = members[0].config
    for other in (member.config for member in members[1:]):
        if (other.target, other.level) != (first.target, first.level):
            raise WeightsError(
                f"models {first.model_id} and {other.model_id} cannot form an ensemble: {first.target} at "
                f"{first.level} px and {other.target} at {other.level} px; name models of one target and level"
            )
        require_same_scale(
            other.scale, first.scale, found_in=f"model {other.model_id}", expected_by=f"model {first.model_id}"
        )


def read_ahead(
    pieces: Iterable[_Piece],
    read: Callable[[_Piece], _Read],
    *,
    n_ahead: int = READ_AHEAD,
    n_threads: int = READING_THREADS,
) -> Iterator[tuple[_Piece, _Read]]:
    """Each piece and what is read for it, about in order; while the caller works on one, threads read the next ones.

    Parameters
    ----------
    pieces
        Taken by one thread at a time, never more than `n_ahead` before the caller asks for them.
    read
        Called in several threads.
    n_ahead
        At least 1.
    n_threads
        That read.

    Notes
    -----
    An error of `pieces` or `read` is raised where its piece would have come. When the caller stops early, what is
    being read is read to its end, and thrown away.
    """
    iterator, turn = iter(pieces), threading.Lock()

    def take_and_read() -> tuple[_Piece, _Read] | None:
        with turn:
            try:
                piece = next(iterator)
            except StopIteration:
                return None
        return piece, read(piece)

    with ThreadPoolExecutor(n_threads, thread_name_prefix="scoring") as pool:
        ahead: deque[Future[tuple[_Piece, _Read] | None]] = deque(pool.submit(take_and_read) for _ in range(n_ahead))
        try:
            # a thread may find nothing left before another has read the last piece: all of them are heard
            while ahead:
                found = ahead.popleft().result()
                if found is not None:
                    ahead.append(pool.submit(take_and_read))
                    yield found
        finally:
            for future in ahead:
                future.cancel()
