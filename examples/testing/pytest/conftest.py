"""Runs each test below this directory in a sandbox of its own: pytest is started once more, for this test alone.

STOCKADE is the command that runs a program in a sandbox, `stockade run` by default. With STOCKADE_TEST_INLINE=1 the tests run
here, for debuggers.
"""

import os
import shlex
import subprocess
import sys

import pytest

RUN = shlex.split(os.environ.get("STOCKADE", "stockade run"))


def options(config):
    """The package, and Python where it is not a part of the system, can be read. The package is where the test runs."""
    shown = {str(config.rootpath), sys.prefix, sys.base_prefix} - {"/usr"}
    binds = [option for path in sorted(shown) for option in ("--ro", path)]
    return ["--profile", "test", *binds, "--cwd", str(config.rootpath), "--env", "STOCKADE_TEST_INLINE=1"]


def run(item):
    """Runs a test, and returns how pytest reports it."""
    again = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(item.config.rootpath), item.nodeid]
    done = subprocess.run([*RUN, *options(item.config), "--", *again], capture_output=True, text=True)
    summary = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode:
        outcome, shown = "failed", f"{done.stdout}\n{done.stderr}"
    elif "passed" not in summary and "skipped" in summary:
        outcome, shown = "skipped", (str(item.path), 0, summary)
    else:
        outcome, shown = "passed", None
    return pytest.TestReport(item.nodeid, item.location, {}, outcome, shown, "call")


def pytest_runtest_protocol(item, nextitem):
    if os.environ.get("STOCKADE_TEST_INLINE", "0") != "0":
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    item.ihook.pytest_runtest_logreport(report=run(item))
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
