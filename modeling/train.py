"""Training of a network on arrays: one loop, from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from modeling.batches import Normalisation, TrainingBatches, place_pixels
from modeling.losses import rmse_loss
from modeling.metrics import Regression
from modeling.networks import GalaxyNetwork, build_network, load_imagenet_weights
from modeling.predict import predict_views
from schemas.errors import TrainingError
from schemas.recipes import NetworkSection, TrainSection

EMA_DECAY = 0.98
SHIFT_FRACTION = 0.03
WARM_UP = 0.25
BF16_CPU = False
LOSS = rmse_loss
EMA=True

@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    epoch: int
    seconds: float
    images_per_s: float
    train_loss: float
    rmse: float
    nmad: float
    learning_rate: float

def train_network(*, pixels, labels, validation_pixels, validation_labels, network, train, on_epoch=None):
    device = torch.device("cpu")
    lm, ls = labels.mean(), labels.std()
    torch.manual_seed(train.seed)
    net = build_network(network).to(memory_format=torch.channels_last)
    resident = place_pixels(pixels, device)
    norm = Normalisation.of(resident)
    y = torch.from_numpy(((labels - lm) / ls).astype(np.float32))[:, None]
    batches = TrainingBatches(resident, y, normalisation=norm, batch_size=train.batch_size, seed=train.seed, largest_shift_px=round(SHIFT_FRACTION*pixels.shape[1]))
    vp = place_pixels(validation_pixels, device)
    opt = torch.optim.AdamW(net.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay, betas=(0.9, 0.99))
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, train.learning_rate, total_steps=train.epochs * len(batches), pct_start=WARM_UP, div_factor=25, final_div_factor=1e3)
    ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    log = []; best=(9,None)
    for epoch in range(train.epochs):
        t = time.perf_counter(); net.train(); tot = 0
        for x, yy in batches.epoch(epoch):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=BF16_CPU):
                loss = LOSS(net(x), yy)
            opt.zero_grad(); loss.backward(); opt.step(); sched.step(); ema.update_parameters(net); tot += loss.item()
        s = time.perf_counter() - t
        ev = ema.module if EMA else net
        if epoch % 5 == 4 or epoch >= train.epochs-1:
            r = Regression.of(validation_labels, predict_views(ev, vp, normalisation=norm, views=1, batch_size=256, device=device)[0].numpy() * ls + lm)
            if r.rmse < best[0]: best = (r.rmse, {k: v.clone() for k, v in ev.state_dict().items()})
            log.append((epoch, tot/len(batches), r.rmse, r.nmad, len(labels)/s))
    last = Regression.of(validation_labels, predict_views(ev, vp, normalisation=norm, views=8, batch_size=256, device=device).mean(0).numpy() * ls + lm)
    ev.load_state_dict(best[1])
    bb = Regression.of(validation_labels, predict_views(ev, vp, normalisation=norm, views=8, batch_size=256, device=device).mean(0).numpy() * ls + lm)
    return log, last, bb
