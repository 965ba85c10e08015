"""Distributed training of one network by several processes (`torchrun`), each with a device.

Each rank has a copy of the network and takes its part of the global batch. Loss, batch normalisation and gradients are
those of the whole batch, so that the training curve does not depend on the number of ranks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Rank of this process and number of processes; by default a single process."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """True for the process that writes files and logs."""
        return self.rank == 0

    def local_slice(self, n: int) -> slice:
        """Return this rank's places in a global batch of n; parts differ in length by one at most."""
        return slice(n * self.rank // self.world, n * (self.rank + 1) // self.world)

    def gather(self, local: Tensor, n: int) -> Tensor:
        """Return the values of all ranks for a global batch of n, (n, ...); gradients flow back to each rank."""
        if self.world == 1:
            return local
        padded = local.new_zeros((n, *local.shape[1:]))
        padded[self.local_slice(n)] = local
        summed: Tensor = _Sum.apply(padded)
        return summed

    def average_gradients(self, network: nn.Module) -> None:
        """Replace the gradients by those of the whole batch."""
        if self.world == 1:
            return
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        # each rank differentiated the loss of the whole batch, so the sum counts it once per rank
        flat /= self.world
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    def synchronise_batch_norm(self, network: nn.Module) -> None:
        """Make batch normalisation measure the whole batch instead of this rank's part."""
        if self.world > 1:
            _replace_batch_norm(network)


def current_ranks() -> Ranks:
    """Return the rank assigned by `torchrun`; the first call joins the process group."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Ranks()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return Ranks(rank=dist.get_rank(), world=dist.get_world_size())


class _Sum(torch.autograd.Function):
    """Sum over all ranks; its gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(_: FunctionCtx, local: Tensor) -> Tensor:
        summed = local.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_: FunctionCtx, gradient: Tensor) -> Tensor:
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return summed


class SynchronisedBatchNorm(_BatchNorm):
    """Batch normalisation over the batches of all ranks. torch's `SyncBatchNorm` does not run on a CPU."""

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
        self._update_running(mean.detach(), variance.detach(), count.detach())
        shape = [1, -1] + [1] * (input.dim() - 2)
        scale = self.weight.double() / torch.sqrt(variance + self.eps)
        shift = self.bias.double() - mean * scale
        normalised: Tensor = wide * scale.view(shape) + shift.view(shape)
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = variance * count / (count - 1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def _replace_batch_norm(network: nn.Module) -> None:
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm):
            synchronised = SynchronisedBatchNorm(child.num_features, child.eps, child.momentum)
            # the same tensors under the same names
            synchronised.weight, synchronised.bias = child.weight, child.bias
            synchronised.running_mean, synchronised.running_var = child.running_mean, child.running_var
            synchronised.num_batches_tracked = child.num_batches_tracked
            setattr(network, name, synchronised)
        else:
            _replace_batch_norm(child)
