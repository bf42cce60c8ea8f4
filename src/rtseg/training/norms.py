"""Statistics of batch norms, measured anew when the layers before them have changed."""

from __future__ import annotations

import contextlib
import itertools

from torch import nn
from torch.optim.swa_utils import update_bn

from rtseg.training.loop import batches
from rtseg.training.session import Session


def measure_norms(session: Session, count: int) -> None:
    """Replace the statistics of the network that is scored by those of training images.

    Training goes on as before: it uses the statistics of its own batches.

    Args:
        session: A run; `session.scored` is changed.
        count: Batches to look at, the ones that the run will train on next.
    """
    network, fabric = session.scored, session.fabric
    with contextlib.closing(batches(session)) as source, fabric.autocast():
        chosen = itertools.islice(source, count * session.plan.options.accumulate)
        update_bn((batch.images.to(fabric.device) for batch in chosen), network)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for statistic in (module.running_mean, module.running_var):
                assert statistic is not None
                statistic.copy_(fabric.all_reduce(statistic, reduce_op="mean"))
