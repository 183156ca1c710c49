# Expected: Wrong answer
# Prints the answer with a null byte, which would end a text in C.
import sys

print(f"{sum(map(int, sys.stdin.read().split()))}\0 and more")
