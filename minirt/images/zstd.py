"""Chapter 13, beyond: zstd without a library of Python's: the system's own libzstd, by ctypes.

Python can read zstd since 3.14. Layers compressed so are older, and the C library lies on nearly every system, since
package managers and the kernel's modules need it.

Source: zstd.h, "Streaming decompression - HowTo".
"""

from __future__ import annotations

import ctypes

from minirt.errors import MinirtError

PIECE = 1 << 20


class ZstdError(Exception):
    """The data is damaged."""


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer: where, how many bytes, how many of them are used."""

    _fields_ = [("place", ctypes.c_void_p), ("size", ctypes.c_size_t), ("used", ctypes.c_size_t)]


class Decompressor:
    """One frame, with the interface of Python 3.14's `ZstdDecompressor`, as far as `streams` uses it."""

    def __init__(self) -> None:
        self._library = _library()
        self._stream = self._library.ZSTD_createDStream()
        self._output = ctypes.create_string_buffer(PIECE)
        self._input = b""
        self.eof, self.needs_input = False, True

    def decompress(self, data: bytes, most: int) -> bytes:
        """At most `most` bytes of output. Raises ZstdError."""
        self._input += data
        source = ctypes.create_string_buffer(self._input, len(self._input))
        given = _Buffer(ctypes.addressof(source), len(self._input), 0)
        taken = _Buffer(ctypes.addressof(self._output), min(most, PIECE), 0)
        left = self._library.ZSTD_decompressStream(self._stream, ctypes.byref(taken), ctypes.byref(given))
        if self._library.ZSTD_isError(left):
            raise ZstdError(self._library.ZSTD_getErrorName(left).decode())
        self._input = self._input[given.used:]
        self.eof = left == 0
        self.needs_input = not self.eof and not self._input and taken.used < taken.size
        return ctypes.string_at(self._output, taken.used)

    @property
    def unused_data(self) -> bytes:
        """What follows the end of the frame."""
        return self._input if self.eof else b""

    def __del__(self) -> None:
        self._library.ZSTD_freeDStream(self._stream)


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libzstd.so.1")
    except OSError:
        raise MinirtError("the layer is compressed with zstd, and this system has neither libzstd nor Python 3.14: "
                          "apt install libzstd1, or dnf install libzstd") from None
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_freeDStream.argtypes = (ctypes.c_void_p,)
    library.ZSTD_decompressStream.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library
