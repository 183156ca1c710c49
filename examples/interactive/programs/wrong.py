# Guesses the same again and again.
while True:
    print(500, flush=True)
    input()
