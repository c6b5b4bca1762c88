"""Real disks that are full or read-only: small tmpfs mounts where they can be had, limits and modes elsewhere."""

import os
import resource
import subprocess
from contextlib import contextmanager


def can_mount(folder):
    """Whether this user may mount a tmpfs."""
    if os.geteuid() != 0:
        return False
    with_tmpfs = _mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder))
    if with_tmpfs:
        _unmount(folder)
    return with_tmpfs


@contextmanager
def small_disk(folder, size):
    """A file system of `size` bytes at `folder`; gives a function that makes it larger. Needs `can_mount`."""
    folder.mkdir(parents=True, exist_ok=True)
    assert _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield lambda size: _mount("-o", f"remount,size={size}", str(folder))
    finally:
        _unmount(folder)


@contextmanager
def small_files(size):
    """No file of this process may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only(folder):
    """Nothing can be written below `folder`, not by root either."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        try:
            yield
        finally:
            folder.chmod(0o700)
        return
    assert _mount("--bind", str(folder), str(folder))
    assert _mount("-o", "remount,bind,ro", str(folder))
    try:
        yield
    finally:
        _unmount(folder)


def _mount(*arguments):
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


def _unmount(folder):
    subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
