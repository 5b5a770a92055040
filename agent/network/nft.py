"""Changes the kernel's packet rules through libnftables, in this process: no program is started per change."""

from __future__ import annotations

import ctypes
import threading


class NftError(Exception):
    """The kernel or libnftables refused a change; the text is what it said."""


class Nft:
    """One libnftables context."""

    def __init__(self) -> None:
        try:
            self._lib = ctypes.CDLL("libnftables.so.1")
        except OSError as error:
            raise NftError(f"libnftables.so.1 can't be loaded ({error}); install the package libnftables1.") from error
        self._lib.nft_ctx_new.restype = ctypes.c_void_p
        self._lib.nft_ctx_new.argtypes = [ctypes.c_uint32]
        for name in ("nft_ctx_buffer_error", "nft_ctx_buffer_output"):
            getattr(self._lib, name).argtypes = [ctypes.c_void_p]
        self._lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._lib.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
        self._lib.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        self._lock = threading.Lock()
        self._context = self._lib.nft_ctx_new(0)
        if not self._context:
            raise NftError("libnftables gave no context.")
        self._lib.nft_ctx_buffer_error(self._context)
        self._lib.nft_ctx_buffer_output(self._context)

    def run(self, text: str) -> None:
        """Apply a script as one transaction."""
        with self._lock:
            if self._lib.nft_run_cmd_from_buffer(self._context, text.encode()) != 0:
                said = self._lib.nft_ctx_get_error_buffer(self._context) or b""
                raise NftError(f"nftables refused a change: {said.decode(errors='replace').strip()}")
