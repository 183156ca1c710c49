# Expected: Forbidden call (socket)
import socket

print(socket.create_connection(("127.0.0.1", 80)))
