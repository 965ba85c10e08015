"""Optimisers and learning-rate schedules of the training methods."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from modeling.models.networks import GalaxyNetwork
from schemas.recipes import TrainSection

WARM_UP = 0.3
"""Share of the steps with a rising rate in the one-cycle schedule. Not 1/k, for which torch divides by zero in a run of
k steps."""
BODY_RATE = 0.1
"""One cycle: learning rate of a pretrained body relative to the randomly initialised head."""
FROZEN_EPOCHS = 2
"""Wu & Boada (2019): number of epochs that train the head alone."""
GROUP_RATES = (0.01, 0.1, 1.0)
"""Wu & Boada (2019): relative rates of the first half of the body, its second half, and the head: 0.001, 0.01, 0.1."""
SECOND_HALF = ("layer3", "layer4")


def plan_optimisation(
    network: GalaxyNetwork, train: TrainSection, *, steps_per_epoch: int, pretrained: bool
) -> tuple[Optimizer, LRScheduler]:
    """Create the optimiser and the schedule of a recipe; the schedule takes one step per batch.

    `method` 'one_cycle': AdamW under one cycle (Smith & Topin 2019). 'wu_boada_2019': SGD with momentum under
    cosine restarts (Loshchilov & Hutter 2017), whose cycles last 1, 1, 2, 4, 8 ... epochs after `FROZEN_EPOCHS`.
    """
    body, head = list(network.body.parameters()), list(network.head.parameters())
    if train.method == "one_cycle":
        parts, rate = [{"params": body}, {"params": head}], train.learning_rate
        optimizer = torch.optim.AdamW(parts, lr=rate, weight_decay=train.weight_decay, betas=(0.9, 0.99))
        rates, n_steps = [rate * (BODY_RATE if pretrained else 1), rate], train.epochs * steps_per_epoch
        return optimizer, OneCycleLR(optimizer, rates, total_steps=n_steps, pct_start=WARM_UP)
    late = {id(weight) for name in SECOND_HALF for weight in network.body.get_submodule(name).parameters()}
    halves = [weight for weight in body if id(weight) not in late], [weight for weight in body if id(weight) in late]
    rated = zip((*halves, head), GROUP_RATES, strict=True)
    groups = [{"params": group, "lr": rate * train.learning_rate} for group, rate in rated]
    sgd = torch.optim.SGD(groups, momentum=0.9, weight_decay=train.weight_decay)
    return sgd, LambdaLR(sgd, _cosine_restarts(steps_per_epoch))


def freeze_body(network: GalaxyNetwork, train: TrainSection, *, epoch: int) -> None:
    """Freeze or unfreeze the body for an epoch (from 1), as the method requires."""
    network.body.requires_grad_(train.method != "wu_boada_2019" or epoch > FROZEN_EPOCHS)


def _cosine_restarts(steps_per_epoch: int) -> Callable[[int], float]:
    """Return the relative rate by step, from 0: 1 while the body is frozen, then a falling cosine in each cycle.

    Examples
    --------
    >>> factor = _cosine_restarts(2)
    >>> [round(factor(step), 2) for step in range(4, 12)]
    [1.0, 0.5, 1.0, 0.5, 1.0, 0.85, 0.5, 0.15]
    """

    def factor(step: int) -> float:
        epoch = step / steps_per_epoch - FROZEN_EPOCHS
        if epoch < 0:
            return 1.0
        start, length = 0, 1
        while epoch >= start + length:
            start += length
            length = max(1, start)
        return 0.5 * (1 + math.cos(math.pi * (epoch - start) / length))

    return factor
