"""Memory of batches comes back when nobody has it any more, and not before."""

import pickle

import numpy as np
import torch

from storage.buffers import Buffers

SHAPE, INT16 = (3, 4, 5), np.dtype(np.int16)


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_when_the_last_view_is_gone():
    buffers = Buffers()
    array = buffers.empty(SHAPE, INT16)
    array[...] = 7
    first, view = address(array), array[1:].reshape(-1)[::2]
    del array
    other = buffers.empty(SHAPE, INT16)
    assert address(other) != first
    other[...] = 9
    assert (view == 7).all()
    tensor = torch.from_numpy(view)
    del view
    assert address(buffers.empty(SHAPE, INT16)) != first
    assert (tensor == 7).all()
    del tensor
    assert address(buffers.empty(SHAPE, INT16)) == first


def test_another_size_and_dtype_get_memory_that_fits():
    buffers = Buffers()
    del (array := [buffers.empty(SHAPE, INT16)])[0]
    large = buffers.empty((30, *SHAPE), np.dtype(np.float32))
    assert (large.shape, large.dtype, large.nbytes) == ((30, *SHAPE), np.float32, 7200)
    assert large.flags.c_contiguous
    assert large.flags.writeable
    assert array == []


def test_what_waits_is_bounded_and_stays_in_its_process():
    buffers = Buffers()
    held = [buffers.empty(SHAPE, INT16) for _ in range(10)]
    del held
    assert len(buffers._free) == 2
    assert len(pickle.dumps(buffers)) < 100
