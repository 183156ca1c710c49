# Expected: Output
# Prints the answer, and white space without end, which a checker would read.
import sys

print(sum(map(int, sys.stdin.read().split())), flush=True)
while True:
    print(" " * 4096)
