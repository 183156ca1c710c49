import socket

import pytest


@pytest.mark.parametrize("number", range(4))
def test_listens_and_writes(number):
    with socket.create_server(("127.0.0.1", 8080)), open("/tmp/x", "x") as file:
        file.write(str(number))


@pytest.mark.skip(reason="shows that a skipped test stays one")
def test_skipped():
    pass
