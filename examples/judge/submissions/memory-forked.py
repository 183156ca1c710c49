# Expected: Memory
# Each process uses less than the limit, which applies to the memory of all processes together.
import os
import signal

for child in range(8):
    if os.fork() == 0:
        block = bytearray(b"x" * (12 << 20))
        signal.pause()

# No child ends by itself.
os.wait()
