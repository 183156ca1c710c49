# Expected: Wrong answer
# Prints the answer between white space of Unicode, which checkers must not take for that of ASCII.
import sys

print("\u00a0%d\u2003" % sum(map(int, sys.stdin.read().split())))
