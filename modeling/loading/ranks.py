"""Ranks: several processes, each with a device, that train one network together (`torchrun`).

Every rank holds the network and takes its part of each global batch; the loss, the moments of batch normalisation and
the gradients are those of the whole batch, so that one rank and many follow the same curve.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """A process among those that train together; by default it is alone."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    def part(self, n: int) -> slice:
        """The rank's places in a global batch of n: parts differ by one at most."""
        return slice(n * self.rank // self.world, n * (self.rank + 1) // self.world)

    def whole(self, mine: Tensor, n: int) -> Tensor:
        """The values of all ranks for a global batch of n, (n, ...), through which gradients flow back to each."""
        if self.world == 1:
            return mine
        padded = mine.new_zeros((n, *mine.shape[1:]))
        padded[self.part(n)] = mine
        summed: Tensor = _Sum.apply(padded)
        return summed

    def share_gradients(self, network: nn.Module) -> None:
        """Put the gradients of the whole batch into every rank's network."""
        if self.world == 1:
            return
        held = [one.grad for one in network.parameters() if one.grad is not None]
        flat = torch.cat([one.reshape(-1) for one in held])
        dist.all_reduce(flat)
        # each rank has followed the loss of the whole batch, so that the sum counts it once a rank
        flat /= self.world
        start = 0
        for one in held:
            one.copy_(flat[start : start + one.numel()].view_as(one))
            start += one.numel()

    def join_normalisation(self, network: nn.Module) -> None:
        """Let batch normalisation measure the whole batch instead of this rank's part."""
        if self.world > 1:
            _replace_normalisation(network)


def current_ranks() -> Ranks:
    """The process among those that `torchrun` started; joins them on the first call."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Ranks()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return Ranks(rank=dist.get_rank(), world=dist.get_world_size())


class _Sum(torch.autograd.Function):
    """The sum over all ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(_: Any, mine: Tensor) -> Tensor:
        summed = mine.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return summed


class JoinedBatchNorm(_BatchNorm):
    """Batch normalisation over the batch of all ranks. torch's `SyncBatchNorm` does not run on a CPU."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        if input.dim() < 2:
            raise ValueError(f"expected (n, channel, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        if not self.training:
            plain: Tensor = super().forward(input)
            return plain
        axes = [axis for axis in range(input.dim()) if axis != 1]
        wide = input.double()
        n = torch.full((1,), input.numel() / input.shape[1], dtype=torch.float64, device=input.device)
        sums = torch.cat([wide.sum(axes), wide.square().sum(axes), n])
        summed: Tensor = _Sum.apply(sums)
        n_channels = input.shape[1]
        total, square, count = summed[:n_channels], summed[n_channels:-1], summed[-1]
        mean = total / count
        variance = square / count - mean.square()
        self._remember(mean.detach(), variance.detach(), count.detach())
        shape = [1, -1] + [1] * (input.dim() - 2)
        scale = self.weight.double() / torch.sqrt(variance + self.eps)
        shift = self.bias.double() - mean * scale
        normalised: Tensor = wide * scale.view(shape) + shift.view(shape)
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = variance * count / (count - 1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def _replace_normalisation(network: nn.Module) -> None:
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm):
            joined = JoinedBatchNorm(child.num_features, child.eps, child.momentum)
            # the same tensors under the same names
            joined.weight, joined.bias = child.weight, child.bias
            joined.running_mean, joined.running_var = child.running_mean, child.running_var
            joined.num_batches_tracked = child.num_batches_tracked
            setattr(network, name, joined)
        else:
            _replace_normalisation(child)
