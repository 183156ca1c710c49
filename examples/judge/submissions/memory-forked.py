# Expected: Memory
# Each process has less than it may have: what counts is the memory of all.
import os
import signal

for child in range(8):
    if os.fork() == 0:
        block = bytearray(b"x" * (12 << 20))
        signal.pause()

# No child ends by itself.
os.wait()
