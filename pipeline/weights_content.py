"""Whether a file looks like weights that torch or timm load, by its first bytes."""

from pathlib import Path

TAR_MAGIC_AT = 257  # bytes
PICKLE_PROTOCOLS = (2, 3, 4, 5)
LOOKED_AT = 512  # bytes, the header of a tar archive
SHOWN = 40


def content_problem(path: Path) -> str:
    """What a file is instead of weights; empty when it may be weights.

    Weights are a safetensors file, a zip archive (PyTorch's format, NumPy's ``.npz``), a pickle (PyTorch's format
    before 1.6) or a tar archive (the one before 0.2).
    """
    with path.open("rb") as file:
        start = file.read(LOOKED_AT)
    if _is_safetensors(start, path.stat().st_size) or _is_archive(start) or _is_pickle(start):
        return ""
    return _kind_of(start)


def _is_safetensors(start: bytes, size: int) -> bool:
    """Eight bytes that hold the length of a header in JSON, and the header."""
    header_length = int.from_bytes(start[:8], "little")
    return 2 <= header_length <= size - 8 and start[8:9] == b"{"


def _is_archive(start: bytes) -> bool:
    return start.startswith(b"PK\x03\x04") or start[TAR_MAGIC_AT:].startswith(b"ustar")


def _is_pickle(start: bytes) -> bool:
    return start[:1] == b"\x80" and start[1:2] != b"" and start[1] in PICKLE_PROTOCOLS


def _kind_of(start: bytes) -> str:
    """What a file seems to be, for a person who wonders what came."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not start:
        return "an empty file"
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if text.startswith(b"<"):
        return "an XML document"
    if text.startswith((b"{", b"[")):
        return "JSON"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        return f"text ({start[:SHOWN].decode()!r})"
    return f"a file that begins with the bytes {start[:8].hex(' ')}"
