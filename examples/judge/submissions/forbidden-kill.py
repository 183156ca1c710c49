# Expected: Forbidden call (kill)
import os
import signal

os.kill(os.getppid(), signal.SIGKILL)
