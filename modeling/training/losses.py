"""Losses on standardised labels; a label that is NaN counts for nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modeling.models.networks import split_gaussian


def rmse_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Root of the mean squared error over a batch (the paper's loss).

    Parameters
    ----------
    predicted, true
        (n, n_targets), float32. `true` may be NaN: such a label is left out of the mean.

    Returns
    -------
    Tensor
        Scalar. Its gradient stays finite where the error is zero.

    Examples
    --------
    >>> round(rmse_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [6.0]])).item(), 3)
    3.536
    """
    error, n_known = _known_error(predicted, true)
    # the root's slope is infinite at 0, and one such batch would fill the weights with NaN
    return torch.sqrt(error.square().sum() / n_known + 1e-12)


def gaussian_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Mean negative log-likelihood of normal errors whose variance is predicted too (Nix & Weigend 1994).

    Parameters
    ----------
    predicted
        (n, 2 n_targets), float32: first the means, then the logarithms of the variances.
    true
        (n, n_targets), float32; NaN is left out.

    Examples
    --------
    >>> round(gaussian_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0]])).item(), 3)
    0.919
    """
    mean, log_variance = split_gaussian(predicted)
    error, n_known = _known_error(mean, true)
    each = 0.5 * (log_variance + error.square() * torch.exp(-log_variance) + math.log(2 * math.pi))
    return torch.where(torch.isnan(true), 0.0, each).sum() / n_known


def _known_error(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Errors, zero where there is no label, and how many there are (at least 1)."""
    known = ~torch.isnan(true)
    return torch.where(known, predicted - true, 0.0), known.sum().clamp(min=1)
