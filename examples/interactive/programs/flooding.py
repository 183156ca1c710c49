# Never waits for an answer.
while True:
    print("x" * 4096)
