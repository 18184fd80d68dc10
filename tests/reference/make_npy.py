#!/usr/bin/env python3
"""Makes the files in npy/ beside this file: arrays as NumPy writes them.

    apt-get install python3-numpy
    tests/reference/make_npy.py

Every array holds 0, 1, 2, ... in row-major order, the booleans 0, 1, 1, 0, 1, 1.
"""

import pathlib

import numpy

HERE = pathlib.Path(__file__).parent / "npy"


def write(name, array, version=None):
    with open(HERE / f"{name}.npy", "wb") as file:
        numpy.lib.format.write_array(file, array, version=version)


def main():
    for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
        write(code, numpy.arange(6, dtype=code).reshape(2, 3))
    write("b1", numpy.array([[0, 1, 1], [0, 1, 1]], dtype=bool))
    write("version2", numpy.arange(3, dtype="f4"), version=(2, 0))
    write("version3", numpy.arange(3, dtype="f4"), version=(3, 0))
    write("scalar", numpy.array(7.0))
    write("empty", numpy.zeros((2, 0, 3), dtype="f4"))
    write("fortran", numpy.asfortranarray(numpy.arange(24, dtype="i8").reshape(2, 3, 4)))
    write("big_endian", numpy.arange(3, dtype=">f8"))


if __name__ == "__main__":
    main()
