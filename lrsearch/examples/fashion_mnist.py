"""Fashion-MNIST: 60,000 and 10,000 images of clothes, 28 by 28 pixels."""

from __future__ import annotations

from lrsearch.examples.classification import OptimizerName, mlp_task
from lrsearch.examples.idx import read_images
from lrsearch.training.task import Task

PLACES = ["/usr/share/datasets/fashion-mnist"]
"""Where the Debian package puts it."""


def task(
    optimizer: OptimizerName = "sgd",
    batch_size: int = 64,
    hidden: int = 100,
    momentum: float = 0.9,
    batch_norm: bool = False,
) -> Task:
    """A net 784-hidden-10 on all training images, validated on the 10,000 test images."""
    train, val = read_images(
        "fashion-mnist",
        places=PLACES,
        mend="on Debian and Ubuntu: apt install dataset-fashion-mnist",
    )
    return mlp_task(
        "fashion-mnist",
        train,
        val,
        optimizer=optimizer,
        batch_size=batch_size,
        hidden=hidden,
        momentum=momentum,
        batch_norm=batch_norm,
    )
