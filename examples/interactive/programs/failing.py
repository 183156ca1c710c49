# Guesses the number, and then exits with an error.
import sys

low, high = 0, 999
while True:
    guess = (low + high) // 2
    print(guess, flush=True)
    answer = input()
    if answer == "right":
        sys.exit(1)
    low, high = (guess + 1, high) if answer == "more" else (low, guess - 1)
