"""``python -m harness.peers.web.handshakes ADDRESS HOST TARGET CLIENTS SECONDS``: a TLS handshake for each request.

wrk resumes sessions, so whole handshakes have a client of their own: Python's ssl, a thread for each client. Prints
what wrk is made to print (``harness.peers.web.client``).
"""

import json
import sys
import threading
import time

from harness.peers.client import percentiles
from harness.peers.web.corpus import unchecked
from harness.peers.web.site import HTTPS_PORT


def main() -> None:
    import socket

    import numpy as np

    address, host, target, clients, seconds = sys.argv[1:]
    request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    context = unchecked()
    until = time.monotonic() + float(seconds)
    took: list[int] = []
    wrong: list[str] = []
    sizes: list[int] = []

    def ask() -> None:
        while time.monotonic() < until:
            began = time.monotonic_ns()
            try:
                with (
                    socket.create_connection((address, HTTPS_PORT), 10) as plain,
                    context.wrap_socket(plain, server_hostname=host, suppress_ragged_eofs=True) as client,
                ):
                    client.sendall(request)
                    answer = b"".join(iter(lambda client=client: client.recv(65536), b""))
            except OSError as error:
                wrong.append(f"{type(error).__name__}: {error}")
                return
            if not answer.startswith(b"HTTP/1.1 200"):
                wrong.append(answer.partition(b"\r")[0].decode(errors="replace"))
                return
            took.append(time.monotonic_ns() - began)
            sizes.append(len(answer))

    began = time.monotonic_ns()
    threads = [threading.Thread(target=ask) for _ in range(int(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99, highest = percentiles(np.array(took, np.int64))
    print(
        json.dumps(
            {
                "answered": len(took),
                "duration_ns": time.monotonic_ns() - began,
                "bytes": sum(sizes),
                "p50_ns": p50,
                "p99_ns": p99,
                "max_ns": highest,
                "errors": {text: wrong.count(text) for text in wrong},
            }
        )
    )


if __name__ == "__main__":
    main()
