from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small layers on two threads wait for each other, on a busy machine for seconds."""
    threads = torch.get_num_threads()
    if not any(request.node.get_closest_marker(word) for word in ("slow", "soak")):
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
