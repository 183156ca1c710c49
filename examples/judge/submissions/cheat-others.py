# Expected: Wrong answer
# Looks for answers and other submissions wherever it can read.
import os

for top, directories, files in os.walk("/"):
    if top == "/":
        directories[:] = [name for name in directories if name not in ("proc", "usr", "sys", "dev")]
    for name in files:
        if name.endswith(".out") or name.startswith("accepted"):
            print(open(os.path.join(top, name)).read())
