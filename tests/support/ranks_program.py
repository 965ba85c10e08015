"""Train on discs as one of several ranks: torchrun --nproc-per-node 2 -m tests.support.ranks_program FILE."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from modeling.loading.ranks import current_ranks
from modeling.training.train import train_network
from schemas.recipes import NetworkSection, TrainSection
from tests.support.training_program import discs


def main() -> None:
    torch.set_num_threads(1)
    rows, validation = discs(151, 0), discs(40, 1)
    trained = train_network(
        pixels=rows[0],
        labels=rows[1],
        validation_pixels=validation[0],
        validation_labels=validation[1],
        # dropout differs between ranks
        network=NetworkSection(arch="resnet10w32", level=8, dropout=(0.0, 0.0)),
        # AdamW would hide gradients of another scale and amplify rounding
        train=TrainSection(epochs=4, batch_size=32, method="wu_boada_2019", learning_rate=0.002, device="cpu"),
    )
    if current_ranks().is_first:
        Path(sys.argv[1]).write_text(json.dumps([[record.train_loss, record.rmse] for record in trained.log]))
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
