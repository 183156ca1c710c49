# Expected: Runtime error (SIGSEGV)
import ctypes

ctypes.string_at(0)
