# Expected: Forbidden call (execve)
import os

if os.fork() == 0:
    os.execv("/bin/sh", ["sh", "-c", "echo 3"])
os.wait()
