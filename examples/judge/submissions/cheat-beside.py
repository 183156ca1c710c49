# Expected: Wrong answer
# Looks for the answer beside the input.
import os

for place in ["/proc/self/fd/0", "/dev/stdin", "/proc/self/cwd", "/proc/1/fd/0"]:
    try:
        found = os.readlink(place)
        print(open(found.replace(".in", ".out")).read())
        break
    except OSError:
        pass
    for answer in ["../1.out", "../../1.out", "1.out"]:
        try:
            print(open(place + "/" + answer).read())
        except OSError:
            pass
