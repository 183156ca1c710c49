# Guesses once, and is then killed by a signal.
import os
import signal

print(500, flush=True)
os.kill(os.getpid(), signal.SIGSEGV)
