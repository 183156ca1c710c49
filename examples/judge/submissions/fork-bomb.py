# Expected: Runtime error (exit 5)
import os
import signal
import sys

while True:
    try:
        child = os.fork()
    except BlockingIOError:
        sys.exit(5)
    if child == 0:
        signal.pause()
