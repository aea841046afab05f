"""Names for the array types in this package."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

type Floats = npt.NDArray[np.floating[Any]]
type Ints = npt.NDArray[np.integer[Any]]
type Bools = npt.NDArray[np.bool_]
