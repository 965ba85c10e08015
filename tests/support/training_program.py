"""Train a small network on discs with frequent saves, for tests that kill it.

python -m tests.support.training_program FOLDER METHOD
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from modeling.training.train import train_network
from schemas.recipes import NetworkSection, TrainSection


def discs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.normal(8.9, 0.2, n)
    pixels = rng.normal(60, 8, (n, 8, 8, 3)) + 100 * (labels - 8.9)[:, None, None, None]
    return pixels.clip(0, 255).astype(np.uint8), labels


def main() -> None:
    folder, method = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    rows, validation = discs(160, 0), discs(40, 1)
    print("started", flush=True)
    trained = train_network(
        pixels=rows[0],
        labels=rows[1],
        validation_pixels=validation[0],
        validation_labels=validation[1],
        network=NetworkSection(arch="resnet10w32", level=8),
        train=TrainSection.model_validate(
            {
                "epochs": 4,
                "batch_size": 16,
                "method": method,
                "loss": "gaussian" if method == "one_cycle" else "rmse",
                "device": "cpu",
                "save_every_s": 0.1,
            }
        ),
        on_epoch=lambda record: print(f"epoch {record.epoch}", flush=True),
        resume_path=folder / "progress.pt",
    )
    weights = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")


if __name__ == "__main__":
    main()
