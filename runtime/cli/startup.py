"""A fast start: no garbage collection in what is loaded, and one thread for torch."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collecting() -> Iterator[None]:
    """Keep the garbage collector away from what is loaded here, now and later: it takes a tenth of a start."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def settle() -> None:
    """One thread of torch. What the imports left behind is removed, what they loaded is not looked at again."""
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
