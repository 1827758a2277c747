"""A filter of system calls, as a BPF program that the kernel checks before every call (seccomp, Linux 3.17 and later).

Denied with "operation not permitted": new processes (threads are allowed), new programs, sockets, and memory that no
limit counts (shared memory segments, memory files). A call that only an attack on the kernel or on other processes
makes kills the program. Calls that neither list names are allowed: what they reach is what the namespaces hold.
Numbers are those of the kernel's tables for x86-64 (arch/x86/entry/syscalls/syscall_64.tbl) and for 64-bit Arm
(include/uapi/asm-generic/unistd.h).
"""

import ctypes
import errno
import platform
import struct

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = (
    0,
    4,
    16,
)  # offsets in struct seccomp_data; both machines: low half first
CLONE_THREAD = 0x10000
X32 = 0x40000000  # calls of x86-64's 32-bit variant have this bit

AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435  # its flags lie in memory, where a filter cannot look; libraries fall back to clone

DENIED = {
    "x86_64": {
        "socket": 41,
        "fork": 57,
        "vfork": 58,
        "execve": 59,
        "execveat": 322,
        "shmget": 29,
        "semget": 64,
        "msgget": 68,
        "mq_open": 240,
        "memfd_create": 319,
    },
    "aarch64": {
        "socket": 198,
        "execve": 221,
        "execveat": 281,
        "shmget": 194,
        "semget": 190,
        "msgget": 186,
        "mq_open": 180,
        "memfd_create": 279,
    },
}

SINCE_2019 = {  # one number on all machines
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "memfd_secret": 447,
}

KILLED = {
    "x86_64": {
        "ptrace": 101,
        "syslog": 103,
        "personality": 135,
        "modify_ldt": 154,
        "pivot_root": 155,
        "adjtimex": 159,
        "chroot": 161,
        "acct": 163,
        "settimeofday": 164,
        "mount": 165,
        "umount2": 166,
        "swapon": 167,
        "swapoff": 168,
        "reboot": 169,
        "sethostname": 170,
        "setdomainname": 171,
        "iopl": 172,
        "ioperm": 173,
        "init_module": 175,
        "delete_module": 176,
        "quotactl": 179,
        "clock_settime": 227,
        "kexec_load": 246,
        "add_key": 248,
        "request_key": 249,
        "keyctl": 250,
        "unshare": 272,
        "perf_event_open": 298,
        "fanotify_init": 300,
        "name_to_handle_at": 303,
        "open_by_handle_at": 304,
        "clock_adjtime": 305,
        "setns": 308,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "kcmp": 312,
        "finit_module": 313,
        "kexec_file_load": 320,
        "bpf": 321,
        "userfaultfd": 323,
        **SINCE_2019,
    },
    "aarch64": {
        "umount2": 39,
        "mount": 40,
        "pivot_root": 41,
        "chroot": 51,
        "quotactl": 60,
        "acct": 89,
        "personality": 92,
        "unshare": 97,
        "kexec_load": 104,
        "init_module": 105,
        "delete_module": 106,
        "clock_settime": 112,
        "syslog": 116,
        "ptrace": 117,
        "reboot": 142,
        "sethostname": 161,
        "setdomainname": 162,
        "settimeofday": 170,
        "adjtimex": 171,
        "add_key": 217,
        "request_key": 218,
        "keyctl": 219,
        "swapon": 224,
        "swapoff": 225,
        "perf_event_open": 241,
        "fanotify_init": 262,
        "name_to_handle_at": 264,
        "open_by_handle_at": 265,
        "clock_adjtime": 266,
        "setns": 268,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "kcmp": 272,
        "finit_module": 273,
        "bpf": 280,
        "userfaultfd": 282,
        "kexec_file_load": 294,
        **SINCE_2019,
    },
}


def is_available() -> bool:
    """Whether the filter is written for this machine."""
    return platform.machine() in AUDIT_ARCHITECTURE


def filter_program(machine: str) -> bytes:
    """The filter for a machine as ``struct sock_filter`` one after another.

    A call that any list names jumps to the returns at the end, so the order of the lists does not matter.
    """
    denied = ERRNO | errno.EPERM
    program = [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (JUMP_EQUAL, 1, 0, AUDIT_ARCHITECTURE[machine]),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER_AT),
        (JUMP_AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, KILL_PROCESS),
    ]
    for numbers, verdict in ((DENIED[machine].values(), denied), (KILLED[machine].values(), KILL_PROCESS)):
        for number in sorted(numbers):
            program += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, verdict)]
    program += [
        (JUMP_EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, ERRNO | errno.ENOSYS),
        (JUMP_EQUAL, 0, 3, CLONE[machine]),
        (LOAD, 0, 0, FIRST_ARGUMENT_AT),
        (JUMP_BITS, 1, 0, CLONE_THREAD),
        (RETURN, 0, 0, denied),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def install() -> None:
    """Put the filter on this process for good; no privilege is needed, and none can be gained afterwards.

    Raises:
        OSError: the kernel refuses it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    program = filter_program(platform.machine())
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):  # struct sock_fprog
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    filled = Program(len(program) // 8, ctypes.cast(code, ctypes.c_void_p))
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filled))):
        if libc.prctl(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl({arguments[0]}): {errno.errorcode.get(number, number)}")
