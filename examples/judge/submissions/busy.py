# Expected: CPU time
while True:
    pass
