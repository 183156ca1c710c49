# Answers guesses of a secret number with "less", "more" or "right". Exits with 0 if the number is guessed in 10 tries, and
# with 1 if it is not, or if a line is not a guess.
import sys

secret = 617
for _ in range(10):
    line = sys.stdin.readline(16)
    if not line.strip().isdigit():
        print("not a guess:", line[:16].strip() or "nothing", file=sys.stderr)
        sys.exit(1)
    guess = int(line)
    print("right" if guess == secret else "less" if guess > secret else "more", flush=True)
    if guess == secret:
        sys.exit(0)
print("too many tries", file=sys.stderr)
sys.exit(1)
