"""The table of a run in VMs: table.py LEFT-OUT KERNEL=LOG…. Its exit status is 1 if anything failed that did not pass when it
was tried once more."""

import re
import sys
from collections import Counter, defaultdict


class Binary:
    """What one test binary printed on one kernel."""

    def __init__(self):
        self.counts = Counter()
        self.began = self.ended = 0
        self.failed = set()
        self.passed_again = set()
        self.trouble = []
        self.seconds = 0
        self.status = None

    def troubles(self):
        """Why it did not pass."""
        if self.status is None:
            return [*self.trouble, "the VM ended while it ran"]
        if self.status == 137:
            return [*sorted(self.failed), *self.trouble, "did not end in time"]
        # A test that failed may leave anything.
        trouble = [] if self.failed else self.trouble
        if self.began != self.ended or self.status != 0 and not self.failed:
            trouble = [*trouble, f"ended {self.ended} of {self.began} times, exit status {self.status}"]
        return sorted(self.failed - self.passed_again) + trouble

    def cell(self):
        again = f", {len(self.passed_again)} again" if self.passed_again else ""
        failed = self.counts["failed"] - len(self.passed_again)
        mark = " !" if self.troubles() else ""
        return f"{self.counts['passed']}/{failed}/{self.counts['skipped']}{again} ({self.seconds}){mark}"


class Kernel:
    """What a VM printed."""

    def __init__(self, log):
        self.release, self.finished, self.boots = "did not boot", False, 0
        self.binaries, self.skipped, self.times = {}, {}, []
        try:
            lines = open(log, encoding="utf-8", errors="replace").read().splitlines()
        except FileNotFoundError:
            lines = []
        self.name = self.again = None
        for line in lines:
            if mark := re.match(r"=== (\S+) ?(.*)", line):
                self.mark(mark[1], mark[2])
            elif self.name:
                self.line(self.binaries[self.name], line)

    def mark(self, kind, rest):
        binary = self.binaries.get(self.name)
        if rest == "boot":
            self.boots += 1
            self.again = None
        elif kind == "kernel":
            self.release = rest
        elif kind == "finished":
            self.finished = True
        elif kind == "begin":
            self.name, self.binaries[rest] = rest, Binary()
        elif kind == "left":
            binary.trouble.append(f"left a process: {rest}")
        elif kind == "again":
            self.again, self.again_passed = rest.split()[1], 0
        elif kind == "tried":
            if rest == "0" and self.again_passed:
                binary.passed_again.add(self.again)
            self.again = None
        elif kind == "end":
            _, status, seconds = rest.split()
            binary.status, binary.seconds = int(status), int(seconds)

    def line(self, binary, line):
        if found := re.match(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", line):
            if self.again:
                self.again_passed += int(found[1])
                return
            binary.ended += 1
            for kind, count in zip(("passed", "failed", "skipped"), found.groups()):
                binary.counts[kind] += int(count)
        elif self.again:
            pass
        elif re.match(r"running \d+ tests?$", line):
            binary.began += 1
        elif found := re.match(r"test (\S+)\s+\.\.\. FAILED", line):
            binary.failed.add(found[1])
        elif found := re.match(r"test (\S+)\s+\.\.\. ignored \((.*)\)$", line):
            self.skipped[self.name, found[1]] = found[2]
        elif found := re.match(r"took ([\d.]+) s: (\S+)", line):
            self.times.append((float(found[1]), self.name, found[2]))


def print_table(kernels):
    print("\npassed/failed/skipped, passed at the second try (seconds)\n")
    rows = [["", *kernels]]
    for name in sorted({name for kernel in kernels.values() for name in kernel.binaries}):
        cells = (kernel.binaries.get(name) for kernel in kernels.values())
        rows.append([name, *(binary.cell() if binary else "-" for binary in cells)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())

    print("\nkernels")
    for name, kernel in kernels.items():
        boots = ", at the second boot" if kernel.boots > 1 else ""
        print(f"  {name}: {kernel.release}{boots}{'' if kernel.finished else ', WHICH DID NOT RUN ALL TESTS'}")


def print_skipped(kernels, left_out):
    reasons = defaultdict(lambda: defaultdict(list))
    for name, kernel in kernels.items():
        for (binary, test), reason in kernel.skipped.items():
            reasons[binary, reason][test].append(name)
    print("\nskipped")
    for (binary, reason), tests in sorted(reasons.items()):
        print(f"  {binary}: {reason}")
        for test, where in sorted(tests.items()):
            print(f"    {test} on {', '.join(where)}")
    for line in open(left_out, encoding="utf-8"):
        if not line.startswith("#") and line.strip():
            where, binary, test, reason = line.split(maxsplit=3)
            print(f"  left out, {binary}: {test} on {where}: {reason.strip()}")


def print_slowest(kernels):
    times = ((*time, name) for name, kernel in kernels.items() for time in kernel.times)
    print("\nslowest")
    for seconds, binary, test, kernel in sorted(times, reverse=True)[:20]:
        print(f"  {seconds:.0f} s: {binary} {test} on {kernel}")


def print_failed(kernels):
    """Gives whether anything did."""
    tried = [(name, binary, test) for name, kernel in kernels.items()
             for binary, its in kernel.binaries.items() for test in sorted(its.passed_again)]
    if tried:
        print("\npassed at the second try")
    for name, binary, test in tried:
        print(f"  {name} {binary}: {test}")

    print("\nfailed")
    failed = False
    for name, kernel in kernels.items():
        if not kernel.finished or not kernel.binaries:
            print(f"  {name}: not all tests ran")
            failed = True
        for binary, its in kernel.binaries.items():
            for trouble in its.troubles():
                print(f"  {name} {binary}: {trouble}")
                failed = True
    if not failed:
        print("  nothing")
    return failed


def main(left_out, *logs):
    kernels = {name: Kernel(path) for name, _, path in (log.partition("=") for log in logs)}
    print_skipped(kernels, left_out)
    print_slowest(kernels)
    print_table(kernels)
    return print_failed(kernels)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
