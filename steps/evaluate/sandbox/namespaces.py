"""Namespaces of its own for a process, and in them a file system that holds Python and nothing else.

Plain calls of the kernel's interface through ctypes (unshare(2), mount(2), mount_setattr(2), pivot_root(2)): Python
3.11 has none of them. Linux 5.12 and later, for mount_setattr.
"""

import ctypes
import os
import sys
from pathlib import Path

from steps.evaluate.sandbox.bounds import DISK_BYTES, INODES

NEW_MOUNTS, NEW_CGROUP, NEW_UTS, NEW_IPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEW_USERS, NEW_PIDS, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
ALL_NEW = NEW_MOUNTS | NEW_CGROUP | NEW_UTS | NEW_IPC | NEW_USERS | NEW_PIDS | NEW_NETWORK

READ_ONLY, NO_SETUID, NO_DEVICES, NO_PROGRAMS, REMOUNT, BIND = 1, 2, 4, 8, 32, 4096
RECURSIVE, PRIVATE = 16384, 1 << 18
DETACH = 2
AT_RECURSIVE = 0x8000
SYS_MOUNT_SETATTR = 442  # on all machines
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
LAST_CAPABILITY = 63
PR_DROP_FROM_BOUNDING_SET = 24
CAPABILITY_VERSION_3 = 0x20080522

NOBODY = 65534
"""User and group that a program runs as where the caller is root."""

SYSTEM_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")

_libc = ctypes.CDLL(None, use_errno=True)


class IsolationError(Exception):
    """The kernel, or the container round this process, refuses a namespace or a mount."""


def leave_for_new_namespaces() -> None:
    """Give this process namespaces of its own; its next child is the first process of the new process namespace."""
    _check(_libc.unshare(ALL_NEW), "new user, mount, process, network, IPC, host name and control group namespaces")


def map_users(pid: int) -> bool:
    """Say who the users in a process's new user namespace are outside; called from outside.

    As root, two: root, who mounts, and nobody, who runs the program. Otherwise the caller alone can be mapped.

    Returns:
        Whether nobody is mapped.

    Raises:
        OSError: the kernel refuses it.
    """
    folder = Path(f"/proc/{pid}")
    if os.geteuid() == 0:
        try:
            for name in ("uid_map", "gid_map"):
                (folder / name).write_text(f"0 0 1\n{NOBODY} {NOBODY} 1\n", encoding="ascii")
        except OSError:  # root of a namespace that has no nobody
            pass
        else:
            return True
    (folder / "setgroups").write_text("deny", encoding="ascii")
    (folder / "uid_map").write_text(f"0 {os.geteuid()} 1\n", encoding="ascii")
    (folder / "gid_map").write_text(f"0 {os.getegid()} 1\n", encoding="ascii")
    return False


def readable_places(library: list[str]) -> list[Path]:
    """Folders that hold the standard library, given as ``sys.path`` names it, and shared libraries."""
    wanted = [*map(Path, library), Path(sys.base_prefix) / "lib", *map(Path, SYSTEM_LIBRARIES)]
    real = sorted({place.resolve() for place in wanted if place.is_dir()})
    return [place for place in real if not any(place.is_relative_to(other) for other in real if other != place)]


def installed_packages(places: list[Path]) -> list[Path]:
    """Folders of installed packages in these places: they might hold the very functions that an answer is asked for."""
    names = ("site-packages", "dist-packages")
    found = {
        path for place in places for name in names for path in (*place.glob(name), *place.glob(f"python3*/{name}"))
    }
    return sorted(path for path in found if path.is_dir() and not path.is_symlink())


def build_view(root: Path, library: list[str]) -> None:
    """Make ``root``, an existing empty folder, this process's whole file system.

    It holds the readable places without installed packages, ``/dev/null`` and ``/dev/urandom``, all read-only, and
    ``/tmp``, which has a size and a number of files. There is no ``/proc`` and no ``/etc``.
    """
    _mount("none", Path("/"), "", RECURSIVE | PRIVATE)
    _mount("tmpfs", root, "tmpfs", NO_SETUID | NO_DEVICES, "size=1m,nr_inodes=4096,mode=755")
    places = readable_places(library)
    for place in places:
        _bind(place, root)
    for packages in installed_packages(places):
        _mount("tmpfs", _inside(packages, root), "tmpfs", READ_ONLY | NO_SETUID | NO_DEVICES, "size=4k,nr_inodes=1")
    for link in map(Path, SYSTEM_LIBRARIES):
        if link.is_symlink() and not _inside(link, root).exists():
            _inside(link, root).parent.mkdir(parents=True, exist_ok=True)
            _inside(link, root).symlink_to(link.resolve())
    for device in map(Path, ("/dev/null", "/dev/urandom")):
        _inside(device, root).parent.mkdir(exist_ok=True)
        _inside(device, root).touch()
        _mount(str(device), _inside(device, root), "", BIND)
    scratch = root / "tmp"
    scratch.mkdir()
    options = f"size={DISK_BYTES},nr_inodes={INODES},mode=1777"
    _mount("tmpfs", scratch, "tmpfs", NO_SETUID | NO_DEVICES | NO_PROGRAMS, options)
    _mount("none", root, "", REMOUNT | BIND | READ_ONLY | NO_SETUID | NO_DEVICES)
    _enter(root)


def drop_privileges(as_nobody: bool) -> None:
    """Lose every capability in the namespaces, and become nobody where nobody is mapped."""
    for capability in range(LAST_CAPABILITY + 1):
        _libc.prctl(PR_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)  # fails beyond the kernel's last one
    if as_nobody:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "dropping all capabilities")


def _bind(place: Path, root: Path) -> None:
    target = _inside(place, root)
    target.mkdir(parents=True, exist_ok=True)
    _mount(str(place), target, "", BIND | RECURSIVE)
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY | NO_SETUID | NO_DEVICES, 0, 0, 0)
    path = os.fsencode(target)
    done = _libc.syscall(SYS_MOUNT_SETATTR, -1, path, AT_RECURSIVE, attributes, ctypes.sizeof(attributes))
    _check(done, f"a read-only view of {place}")


def _inside(path: Path, root: Path) -> Path:
    return root / path.relative_to("/")


def _enter(root: Path) -> None:
    os.chdir(root)
    number = SYS_PIVOT_ROOT[os.uname().machine]
    _check(_libc.syscall(number, b".", b"."), "pivot_root")  # the old root comes to lie on top, and goes
    _check(_libc.umount2(b".", DETACH), "detaching the old root")
    os.chdir("/tmp")  # noqa: S108 - the sandbox's own


def _mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    what = f"mounting {source} on {target}"
    _check(_libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, options.encode() or None), what)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise IsolationError(f"{what}: {os.strerror(ctypes.get_errno())}")
