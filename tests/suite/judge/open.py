# Expected: Wrong answer
try:
    print(open("@ANSWER@").read())
except OSError:
    pass
