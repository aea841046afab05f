"""Order of axes in a word: `HWC`, `CHW`, or `C(WH)` where two of them lie in one, W the slower.

MATLAB counts the rows first, so that what it made of an image's pixels in a row is `(WH)`.
"""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray


def arrange(
    array: NDArray[Any], axes: str, wanted: str, sides: tuple[int, int] | None = None
) -> NDArray[Any]:
    """Return an array with its axes in another order.

    Args:
        array: The numbers.
        axes: Letters of its axes, those that lie in one axis in brackets, the slower first.
        wanted: The same letters in the order wanted.
        sides: Rows H and columns W; needed where both lie in one axis.

    Raises:
        ValueError: The letters do not fit the array, or not what is wanted.
    """
    groups = [group.strip("()") for group in re.findall(r"\([A-Z]+\)|[A-Z]", axes)]
    letters = "".join(groups)
    if sorted(letters) != sorted(wanted) or re.sub(r"[()]", "", axes) != letters:
        raise ValueError(
            f"expected axes of the letters {', '.join(wanted)}, such as {wanted!r}, got {axes!r}"
        )
    if len(groups) != array.ndim:
        raise ValueError(f"axes {axes!r} are {len(groups)}, but the array has {array.shape}")
    known = {} if sides is None else dict(zip("HW", sides, strict=True))
    shape = []
    for group, length in zip(groups, array.shape, strict=True):
        lengths = [length] if len(group) == 1 else [known.get(letter, 0) for letter in group]
        if math.prod(lengths) != length:
            raise ValueError(
                f"axes {axes!r}: expected {' x '.join(group)} = {length} of {array.shape}, got "
                f"sides {sides}; say sides: [rows, columns]"
            )
        shape += lengths
    order = [letters.index(letter) for letter in wanted]
    return np.ascontiguousarray(array.reshape(shape).transpose(order))
