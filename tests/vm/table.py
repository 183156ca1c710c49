"""The table of a run in VMs: table.py LEFT-OUT KERNEL=LOG…. Its exit status is 1 if anything failed."""

import re
import sys
from collections import Counter, defaultdict


class Binary:
    """What one test binary printed on one kernel."""

    def __init__(self):
        self.counts = Counter()
        self.trouble = []
        self.seconds = 0
        self.ended = False


def read(log):
    """Gives the kernel's own name, its binaries, whether all of them ran, and the reasons of what was skipped."""
    release, finished, binaries, skipped, binary = "did not boot", False, {}, {}, None
    try:
        lines = open(log, encoding="utf-8", errors="replace").read().splitlines()
    except FileNotFoundError:
        lines = []
    for line in lines:
        mark = re.match(r"=== (\S+) ?(.*)", line)
        if mark and mark[1] == "kernel":
            release = mark[2]
        elif mark and mark[1] == "finished":
            finished = True
        elif mark and mark[1] == "begin":
            binary, name = Binary(), mark[2]
            binaries[name] = binary
        elif mark and mark[1] == "left":
            binary.trouble.append(f"left a process: {mark[2]}")
        elif mark and mark[1] == "end":
            _, status, seconds = mark[2].split()
            binary.ended, binary.seconds = True, int(seconds)
            if status == "137":
                binary.trouble.append("did not end in time")
            elif status != "0" and not binary.counts["failed"]:
                binary.trouble.append(f"exit status {status}")
        elif found := re.match(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", line):
            for kind, count in zip(("passed", "failed", "skipped"), found.groups()):
                binary.counts[kind] += int(count)
        elif found := re.match(r"test (\S+)\s+\.\.\. FAILED", line):
            binary.trouble.append(found[1])
        elif found := re.match(r"skipped as (\w+): (\w+): (.*)", line):
            skipped[name, f"{found[1]}::{found[2]}"] = found[3]
    for binary in binaries.values():
        if not binary.ended:
            binary.trouble.append("the VM ended while it ran")
    return release, finished, binaries, skipped


def main(left_out, *logs):
    kernels = {}
    for log in logs:
        kernel, _, path = log.partition("=")
        kernels[kernel] = read(path)
    names = sorted({name for _, _, binaries, _ in kernels.values() for name in binaries})

    print("\npassed/failed/skipped (seconds)\n")
    rows = [["", *kernels]]
    for name in names:
        row = [name]
        for _, _, binaries, _ in kernels.values():
            binary = binaries.get(name)
            counts = binary and "/".join(str(binary.counts[kind]) for kind in ("passed", "failed", "skipped"))
            row.append(f"{counts} ({binary.seconds}){' !' if binary.trouble else ''}" if binary else "-")
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())

    print("\nkernels")
    for kernel, (release, finished, _, _) in kernels.items():
        print(f"  {kernel}: {release}{'' if finished else ', WHICH DID NOT RUN ALL TESTS'}")

    reasons = defaultdict(lambda: defaultdict(list))
    for kernel, (_, _, _, skipped) in kernels.items():
        for (name, test), reason in skipped.items():
            reasons[name, reason][test].append(kernel)
    print("\nskipped")
    for (name, reason), tests in sorted(reasons.items()):
        print(f"  {name}: {reason}")
        for test, where in sorted(tests.items()):
            print(f"    {test} on {', '.join(where)}")
    for line in open(left_out, encoding="utf-8"):
        if not line.startswith("#") and line.strip():
            where, name, test, reason = line.split(maxsplit=3)
            print(f"  left out, {name}: {test} on {where}: {reason.strip()}")

    failed = False
    print("\nfailed")
    for kernel, (_, finished, binaries, _) in kernels.items():
        failed |= not finished or not binaries
        for name, binary in binaries.items():
            failed |= bool(binary.trouble) or binary.counts["failed"] > 0
            for trouble in binary.trouble:
                print(f"  {kernel} {name}: {trouble}")
    if not failed:
        print("  nothing")
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
