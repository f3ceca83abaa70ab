"""``python -m harness.peers.web.handshakes ADDRESS PORT HOST TARGET CLIENTS SECONDS``: a handshake for each request.

wrk resumes sessions, so whole handshakes have a client of their own: Python's ssl, a thread for each client. It prints
what wrk is made to print (``wrk.lua``), and imports little, so that it is there at once.
"""

import json
import socket
import ssl
import sys
import threading
import time
from collections import Counter

PATIENCE_S = 10.0


class Asking:
    """Clients that ask until a time, and what came of it; an error ends the one that meets it."""

    def __init__(self, where: tuple[str, int], host: str, target: str):
        self._where, self._host = where, host
        self._request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self.took_ns: list[int] = []
        self.sizes: list[int] = []
        self.errors: list[str] = []

    def until(self, end_ns: int) -> None:
        """Asks one request after the other."""
        while (began_ns := time.monotonic_ns()) < end_ns and not self.errors:
            try:
                answer = self._answer()
            except OSError as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                return
            if not answer.startswith(b"HTTP/1.1 200"):
                self.errors.append(answer.partition(b"\r")[0].decode(errors="replace"))
                return
            self.took_ns.append(time.monotonic_ns() - began_ns)
            self.sizes.append(len(answer))

    def _answer(self) -> bytes:
        with (
            socket.create_connection(self._where, PATIENCE_S) as plain,
            self._context.wrap_socket(plain, server_hostname=self._host) as client,
        ):
            client.sendall(self._request)
            parts = []
            while part := client.recv(65536):
                parts.append(part)
        return b"".join(parts)


def main() -> None:
    address, port, host, target, clients, seconds = sys.argv[1:]
    asking = Asking((address, int(port)), host, target)
    began_ns = time.monotonic_ns()
    end_ns = began_ns + int(seconds) * 1_000_000_000
    threads = [threading.Thread(target=asking.until, args=(end_ns,)) for _ in range(int(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    duration_ns = time.monotonic_ns() - began_ns
    took = sorted(asking.took_ns) or [0]
    said = {"answered": len(asking.took_ns), "duration_ns": duration_ns, "bytes": sum(asking.sizes)}
    ranks = {
        f"{name}_ns": took[-(-len(took) * share // 100) - 1] for name, share in (("p50", 50), ("p99", 99), ("max", 100))
    }
    print(json.dumps({**said, **ranks, "errors": Counter(asking.errors)}))


if __name__ == "__main__":
    main()
