"""Losses on standardised labels."""

from __future__ import annotations

import torch
from torch import Tensor


def rmse_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Root of the mean squared error over a batch (the paper's loss).

    Parameters
    ----------
    predicted, true
        (n, n_targets), float32.

    Returns
    -------
    Tensor
        Scalar. Its gradient stays finite where the error is zero.

    Examples
    --------
    >>> round(rmse_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [6.0]])).item(), 3)
    3.536
    """
    # the root's slope is infinite at 0, and one such batch would fill the weights with NaN
    return torch.sqrt((predicted - true).square().mean() + 1e-12)
