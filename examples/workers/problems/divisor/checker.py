# Accepts any divisor. Exits with 1 if the output is wrong.
import sys

input_path, output_path, answer_path = sys.argv[1:]
number = int(open(input_path).read())
words = open(output_path, errors="replace").read().split()
if len(words) != 1 or not words[0].isascii() or not words[0].isdigit() or len(words[0]) > 7:
    sys.exit(f"expected one number, found {len(words)} words")
divisor = int(words[0])
if not 1 < divisor < number or number % divisor:
    sys.exit(f"{divisor} is not a divisor of {number}")
