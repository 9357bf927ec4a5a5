"""CPU time and memory of a peer: of this process and, where it starts others, of all that descends from it."""

import os

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds():
    """Processes by their id: CPU seconds, those of children that were waited for included."""
    parent, cpu = {}, {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parent[int(pid)] = int(fields[1])
        cpu[int(pid)] = sum(map(int, fields[11:15])) / TICKS
    ours = {os.getpid()}
    while more := {pid for pid, of in parent.items() if of in ours} - ours:
        ours |= more
    return {pid: cpu[pid] for pid in ours if pid in cpu}


def memory(pids):
    """MiB of these processes, shared pages counted once."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total / 1024


def peak():
    """The most MiB that this process alone has had."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024
