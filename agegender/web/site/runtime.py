"""The files of ONNX Runtime for browsers: from a folder, or downloaded once from the npm registry."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tarfile
from pathlib import Path

from agegender.errors import AgeGenderError, require
from agegender.system.files import atomic_write, default_cache_dir, raise_write_errors

VERSION = "1.30.0"
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
# SHA-512 in base64, the `dist.integrity` of the npm package
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
ENTRY = "ort.wasm.min.mjs"  # the module that a page imports; it loads the other two from its own folder
NAMES = (ENTRY, "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_LARGEST = 100_000_000  # bytes of a download
_PATIENCE = 30  # seconds without an answer
_BY_HAND = f"npm pack onnxruntime-web@{VERSION}, unpack it, and give runtime=<its folder dist>"


def runtime_files(folder: str | None) -> tuple[dict[str, bytes], str]:
    """Return the contents of the files in `NAMES`, and their version.

    Args:
        folder: The folder `dist` of the npm package `onnxruntime-web`; None for `VERSION`, which is downloaded (33 MB)
            into the cache.

    Raises:
        AgeGenderError: A file is missing or can't be read, or the download failed or was altered.
    """
    files = _from_folder(Path(folder)) if folder else _from_package(_package())
    found = re.search(rb"ONNX Runtime Web v(\d[\w.-]*)", files[ENTRY][:500])
    require(bool(found), f"runtime={folder}: {ENTRY} is not a file of onnxruntime-web; {_BY_HAND}")
    assert found is not None
    return files, found[1].decode()


def _from_folder(folder: Path) -> dict[str, bytes]:
    try:
        return {name: (folder / name).read_bytes() for name in NAMES}
    except OSError as error:
        reason = f"{error.filename} can't be read ({error.strerror})"
        raise AgeGenderError(f"runtime={folder}: {reason}; {_BY_HAND}") from None


def _from_package(content: bytes) -> dict[str, bytes]:
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as package:  # its hash was verified
        for name in NAMES:
            member = package.extractfile(f"package/dist/{name}")
            assert member is not None
            files[name] = member.read()
    return files


def _package() -> bytes:
    """Return the npm package from the cache, downloaded first if it isn't there or is damaged."""
    path = default_cache_dir() / f"onnxruntime-web-{VERSION}.tgz"
    if path.is_file() and _is_intact(content := path.read_bytes()):
        return content
    print(f"downloading onnxruntime-web {VERSION} (33 MB) from {ADDRESS}", flush=True)
    content = _download()
    require(_is_intact(content), f"{ADDRESS} is not the published file: its SHA-512 differs; {_BY_HAND}")
    with raise_write_errors("the download", path), atomic_write(path) as file:
        file.write(content)
    return content


def _is_intact(content: bytes) -> bool:
    return base64.b64encode(hashlib.sha512(content).digest()).decode() == INTEGRITY


def _download() -> bytes:
    import requests  # a tenth of a second that a cached package doesn't need

    content = io.BytesIO()
    try:
        with requests.get(ADDRESS, stream=True, timeout=_PATIENCE) as answer:
            answer.raise_for_status()
            for block in answer.iter_content(1 << 20):
                content.write(block)
                require(content.tell() < _LARGEST, f"{ADDRESS} is too large; {_BY_HAND}")
    except (requests.RequestException, OSError) as error:
        raise AgeGenderError(f"{ADDRESS} can't be downloaded ({type(error).__name__}); {_BY_HAND}") from None
    return content.getvalue()
