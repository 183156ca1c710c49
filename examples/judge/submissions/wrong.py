# Expected: Wrong answer
# It prints a decimal point.
import sys

print(sum(map(float, sys.stdin.read().split())))
