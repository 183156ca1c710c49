# Thinks of a number, and answers guesses with "less", "more" or "right". Ends with 0 if it was guessed in 10 tries, and
# with 1 if it was not, or if what came was no guess.
import sys

secret = 617
for _ in range(10):
    line = sys.stdin.readline(16)
    if not line.strip().isdigit():
        print("no guess:", line[:16].strip() or "nothing", file=sys.stderr)
        sys.exit(1)
    guess = int(line)
    print("right" if guess == secret else "less" if guess > secret else "more", flush=True)
    if guess == secret:
        sys.exit(0)
print("too many tries", file=sys.stderr)
sys.exit(1)
