# Repeats the same guess.
while True:
    print(500, flush=True)
    input()
