"""What tests compile, kept on the disk: libraries that g++ built and what NVRTC said of kernels.

One folder serves all processes: ``IGC_REF_TEST_CACHE``, or ``igc-ref-tests-UID`` in the temporary
folder. It may be deleted at any time.
"""

import hashlib
import os
import tempfile
from pathlib import Path

__all__ = ["cached"]


def cached(key, suffix, build):
    """Return the file that belongs to a key; build it where there is none yet.

    Parameters
    ----------
    key : iterable of str
        All that the file is made of: source, options, version of the compiler.
    suffix : str
        Of the file's name, such as ``".so"``.
    build : callable
        ``build(path)`` writes the file. Its folder holds nothing else and is deleted afterwards.
    """
    folder = _folder()
    digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:32]
    path = folder / f"{digest}{suffix}"
    if not path.exists():
        # Built under another name: another process sees the whole file or none.
        with tempfile.TemporaryDirectory(dir=folder) as workshop:
            build(Path(workshop) / path.name)
            os.replace(Path(workshop) / path.name, path)
    return path


def _folder():
    chosen = os.environ.get("IGC_REF_TEST_CACHE")
    folder = Path(chosen or Path(tempfile.gettempdir()) / f"igc-ref-tests-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():  # others' libraries would run here
        raise PermissionError(f"{folder} belongs to another user; set IGC_REF_TEST_CACHE")
    return folder
