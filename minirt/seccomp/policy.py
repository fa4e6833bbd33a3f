"""Chapter 11: the policy that every container gets unless it asks for another one.

It is Docker's: what is allowed here is allowed there, and the other way round (the names are those of moby 28). What it
keeps out is, in short: whatever needs a capability that the container does not have, so that a mistake in the kernel's
own check cannot be reached; what manages the machine (modules, clocks, quotas, reboot, kexec, swap); new namespaces;
and calls with a history of mistakes (keyrings, bpf, perf, userfaultfd, io_uring).

Data in the form of Docker's profiles, so that `compiler` reads it as it reads a file of the user's. What concerns other
processors than ours is left out.
"""

from __future__ import annotations

ALWAYS = {
    "files and directories": (
        "access chdir chmod chown chown32 creat faccessat faccessat2 fadvise64 fadvise64_64 fallocate "
        "fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fdatasync fgetxattr flistxattr "
        "flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 "
        "futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 "
        "inotify_rm_watch lchown lchown32 lgetxattr link linkat listxattr listxattrat llistxattr lremovexattr "
        "lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 "
        "readlink readlinkat removexattr removexattrat rename renameat renameat2 rmdir setxattr setxattrat stat "
        "stat64 statfs statfs64 statmount listmount statx symlink symlinkat sync sync_file_range syncfs truncate "
        "truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes"
    ),
    "reading and writing": (
        "_llseek close close_range copy_file_range dup dup2 dup3 fcntl fcntl64 io_cancel io_destroy io_getevents "
        "io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl lseek pipe pipe2 pread64 preadv preadv2 "
        "pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 splice tee vmsplice write writev"
    ),
    "waiting for something": (
        "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait "
        "epoll_wait_old eventfd eventfd2 pause poll ppoll ppoll_time64 pselect6 pselect6_time64 select"
    ),
    "memory": (
        "brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 "
        "mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free "
        "pkey_mprotect process_mrelease remap_file_pages"
    ),
    "processes and threads": (
        "execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake "
        "get_robust_list get_thread_area getpgid getpgrp getpid getppid getsid gettid pidfd_open prctl prlimit64 "
        "restart_syscall rseq set_robust_list set_thread_area set_tid_address setpgid setsid uretprobe "
        "vfork wait4 waitid "
        "waitpid"
    ),
    "signals": (
        "kill pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn "
        "rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signalfd signalfd4 "
        "sigprocmask sigreturn tgkill tkill"
    ),
    "users, groups, privileges": (
        "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid "
        "getresgid32 getresuid getresuid32 getuid getuid32 landlock_add_rule landlock_create_ruleset "
        "landlock_restrict_self seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups "
        "setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid "
        "setuid32"
    ),
    "time and timers": (
        "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime "
        "clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time "
        "timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 "
        "timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times"
    ),
    "scheduling, limits, information": (
        "getcpu getpriority getrandom getrlimit getrusage ioprio_get ioprio_set sched_get_priority_max "
        "sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler "
        "sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam "
        "sched_setscheduler sched_yield setpriority setrlimit sysinfo ugetrlimit uname"
    ),
    "sockets": (
        "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg "
        "recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair"
    ),
    "System V and POSIX IPC": (
        "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend "
        "mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop "
        "semtimedop_time64 shmat shmctl shmdt shmget"
    ),
}
# What is allowed to those who have the capability anyway: then the filter adds nothing.
WITH_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie "
        "lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount "
        "open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog "
        "umount umount2 unshare"
    ),
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}
NEW_NAMESPACES = 0x7E020000  # the CLONE_NEW* bits of clone(2)
AF_VSOCK = 40                # sockets to the hypervisor belong to the machine, not to a network namespace
PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)  # Linux, 32-bit addresses, uname 2.6, both, "only ask"
ENOSYS = 38


def _rule(names: str, **more: object) -> dict[str, object]:
    return {"names": names.split(), "action": "SCMP_ACT_ALLOW", **more}


def _argument(operator: str, value: int, second: int = 0) -> list[dict[str, object]]:
    return [{"index": 0, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": second}]


BUILTIN = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,  # EPERM
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        *(_rule(names) for names in ALWAYS.values()),
        *(_rule(names, includes={"caps": [capability]}) for capability, names in WITH_CAPABILITY.items()),
        # Since Linux 4.8 a tracer cannot slip past the filter of what it traces.
        _rule("process_vm_readv process_vm_writev ptrace", includes={"minKernel": "4.8"}),
        _rule("socket", args=_argument("NE", AF_VSOCK)),
        *(_rule("personality", args=_argument("EQ", value)) for value in PERSONALITIES),
        _rule("arch_prctl", includes={"arches": ["amd64", "x32"]}),
        _rule("modify_ldt", includes={"arches": ["amd64", "x32", "x86"]}),
        _rule("arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
              includes={"arches": ["arm", "arm64"]}),
        # A clone without new namespaces. clone3 keeps its flags in memory, where a filter cannot look: so it "does not
        # exist" (ENOSYS), and the C library falls back to clone.
        _rule("clone", args=_argument("MASKED_EQ", NEW_NAMESPACES), excludes={"caps": ["CAP_SYS_ADMIN"]}),
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
    ],
}
