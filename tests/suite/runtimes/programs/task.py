import socket
import subprocess
import sys
import threading


def thread():
    other = threading.Thread(target=lambda: print("thread"))
    other.start()
    other.join()


def memory():
    taken = []
    while True:
        taken.append(b"x" * (1 << 20))


{
    "hello": lambda: print("hello"),
    "thread": thread,
    "subprocess": lambda: subprocess.run(["echo", "child"], check=True),
    "resolve": lambda: print(socket.gethostbyname(socket.gethostname())),
    "memory": memory,
}[sys.argv[1]]()
