"""Whether two machines reach each other by TCP, both ways: a scheduler's route to its workers, tried before a run."""

import hmac
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

REACHED_WITHIN_S = 5.0
REACHED = "reached"


@contextmanager
def answering(host: str, token: str) -> Iterator[int]:
    """Answer, at an ephemeral port of the address ``host``, those who know ``token``; yields the port.

    A caller says the token and a port of its own; it is told whether the way back to there is open.
    """

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.connection.settimeout(REACHED_WITHIN_S)
            said, _, port = (
                self.rfile.readline(256).decode("ascii", "replace").strip().partition(" ")
            )
            if hmac.compare_digest(said, token) and port.isdecimal():
                self.wfile.write(f"{_knock((self.client_address[0], int(port)), token)}\n".encode())

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Callers that hang up are no concern of ours."""

    with Server((host, 0), Answer) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def try_route(own: str, address: tuple[str, int], token: str) -> tuple[str, str]:
    """Call the one who is `answering` at ``address`` from the address ``own``.

    Returns
    -------
    (str, str)
        Why the way there, and why the way back, is closed; empty when it is open.
    """
    try:
        with socket.create_server((own, 0)) as back:
            back.settimeout(REACHED_WITHIN_S)
            with socket.create_connection(address, REACHED_WITHIN_S, (own, 0)) as there:
                there.settimeout(2 * REACHED_WITHIN_S)
                there.sendall(f"{token} {back.getsockname()[1]}\n".encode())
                answer = there.makefile().readline().strip()
            if not answer:
                return "somebody else answers there", ""
            return "", "" if answer == REACHED else answer
    except OSError as error:
        return error.strerror or str(error), ""


def _knock(address: tuple[str, int], token: str) -> str:
    try:
        with socket.create_connection(address, REACHED_WITHIN_S):
            return REACHED
    except OSError as error:
        return error.strerror or str(error)
