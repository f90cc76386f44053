"""Arrays in an .npz file, which may come from a stranger: nothing is allocated that nobody could mean.

`numpy.load` makes an array as large as its header says, and a zip unpacks to a thousand times its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

MOST_ARRAYS = 4096
Shape = tuple[int, ...]
# The name, dtype and shape of an array -> what is expected in its place, in words, or None where it fits.
Judge = Callable[[str, "np.dtype[Any]", Shape], str | None]


def read_arrays(source: BinaryIO | Path, judge: Judge, most: int) -> dict[str, NDArray[Any]]:
    """The arrays by name, of at most `most` bytes together, each judged before it is read.

    Raises `ValueError` where the file is something else, and what `zipfile` and `zlib` raise where it is
    damaged.
    """
    import zipfile  # most bundles begin at zero, and it takes 5 ms

    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    arrays: dict[str, NDArray[Any]] = {}
    left = most
    with zipfile.ZipFile(source) as archive:
        entries = archive.infolist()
        if len(entries) > MOST_ARRAYS:
            raise ValueError(f"it holds {len(entries)} arrays, expected at most {MOST_ARRAYS}")
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name in arrays or entry.flag_bits & 1 or entry.compress_type not in methods:
                raise ValueError(f"{entry.filename!r} stands there twice, is encrypted, or packed otherwise")
            with archive.open(entry) as file:
                dtype, shape = _header(file)
                expected = judge(name, dtype, shape)
                size = dtype.itemsize * math.prod(shape)
                if expected is None and size > left:
                    expected = f"at most {most:,} bytes of arrays"
                if expected is not None:
                    raise ValueError(f"{name!r} is {dtype} {list(shape)}, expected {expected}")
                data = file.read(size)
                if len(data) != size or file.read(1):
                    raise ValueError(f"{name!r} has not as many values as its shape says")
                left -= size
            arrays[name] = np.frombuffer(data, dtype).reshape(shape).copy()
    return arrays


def _header(file: Any) -> tuple[np.dtype[Any], Shape]:
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"an array of the .npy version {version}")
    if fortran and len(shape) > 1:
        raise ValueError("an array in the order of Fortran")
    if dtype.hasobject or dtype.names is not None:
        raise ValueError(f"an array of {dtype}")
    return dtype, tuple(int(n) for n in shape)
