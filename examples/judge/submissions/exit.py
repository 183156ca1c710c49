# Expected: Runtime error (exit 3)
import sys

sys.exit(3)
