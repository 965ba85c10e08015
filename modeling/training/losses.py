"""Losses on standardised labels; NaN labels are ignored."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modeling.models.networks import split_gaussian


def rmse_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Compute the root mean squared error of a batch, (n, n_targets) float32 each: the loss of Wu & Boada (2019).

    Examples
    --------
    >>> round(rmse_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [6.0]])).item(), 3)
    3.536
    """
    error, n_known = _known_error(predicted, true)
    # the derivative of the root is infinite at 0, and one such batch would set the weights to NaN
    return torch.sqrt(error.square().sum() / n_known + 1e-12)


def gaussian_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Compute the mean negative log-likelihood of normal errors with predicted variances (Nix & Weigend 1994).

    Predictions are (n, 2 n_targets) float32: means, then logarithms of the variances.

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
    """Return the errors, zero for missing labels, and the number of labels (at least 1)."""
    known = ~torch.isnan(true)
    return torch.where(known, predicted - true, 0.0), known.sum().clamp(min=1)
