"""probe.py NODES LEVEL HOST...: status 0 if every HOST answers on port 9042 and the nodes work together.

LEVEL NONE: it takes connections. Else: each HOST lists NODES - 1 peers, a read at LOCAL_SERIAL is answered, and one at
LEVEL (ALL shows that a node sees all others alive). The ordinary role that the tests log in as is made if it is missing.
CQL's native protocol, version 4, by hand: nothing to install.
"""

import socket
import struct
import sys

VERSION, STARTUP, READY, AUTHENTICATE, QUERY, RESULT, AUTH_RESPONSE, AUTH_SUCCESS = 4, 1, 2, 3, 7, 8, 15, 16
# What cql-engine.sh prints in its URL, and who makes it.
ROLE = ("limpet", "limpet")
SUPERUSER = ("cassandra", "cassandra")
LEVELS = {"ONE": 1, "QUORUM": 4, "ALL": 5, "LOCAL_SERIAL": 9}
SKIP_METADATA = 2
ROWS = 2
TIMEOUT_S = 5
TABLE = "limpet_engine.probe"


class Refused(Exception):
    """What the node answered instead of what was asked for."""


class Node:
    def __init__(self, host, login=None):
        """Without a log-in nothing can be asked, where nodes want one."""
        self.host = host
        self.socket = socket.create_connection((host, 9042), TIMEOUT_S)
        options = {"CQL_VERSION": "3.0.0"}
        body = struct.pack(">H", len(options))
        for text in (t for pair in options.items() for t in pair):
            body += struct.pack(">H", len(text)) + text.encode()
        got, _ = self.ask(STARTUP, body, READY, AUTHENTICATE)
        if got == AUTHENTICATE and login is not None:
            token = "".join("\0" + text for text in login).encode()
            self.ask(AUTH_RESPONSE, struct.pack(">I", len(token)) + token, AUTH_SUCCESS)

    def ask(self, opcode, body, *expected):
        self.socket.sendall(struct.pack(">BBhBI", VERSION, 0, 0, opcode, len(body)) + body)
        _, _, _, got, length = struct.unpack(">BBhBI", self.read(9))
        answer = self.read(length)
        if got not in expected:
            text = answer[6:].decode(errors="replace") if got == 0 else f"opcode {got}"
            raise Refused(f"{self.host}: {text}")
        return got, answer

    def read(self, length):
        data = b""
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            if not part:
                raise ConnectionError(f"{self.host} closed the connection")
            data += part
        return data

    def query(self, text, level="ONE"):
        """The number of rows, or None for a statement that has none."""
        body = struct.pack(">I", len(text)) + text.encode() + struct.pack(">HB", LEVELS[level], SKIP_METADATA)
        _, answer = self.ask(QUERY, body, RESULT)
        # Rows without metadata: kind, flags, number of columns, number of rows, then the rows.
        return struct.unpack(">I", answer[12:16])[0] if struct.unpack(">I", answer[:4])[0] == ROWS else None


def peers(node):
    try:
        return node.query("SELECT peer FROM system.peers_v2")
    except Refused:
        return node.query("SELECT peer FROM system.peers")


def work_together(nodes, count, level):
    for node in nodes:
        seen = peers(node)
        if seen != count - 1:
            raise Refused(f"{node.host}: sees {seen} of {count - 1} others")
    first = nodes[0]
    first.query(
        "CREATE KEYSPACE IF NOT EXISTS limpet_engine WITH replication = "
        f"{{'class': 'NetworkTopologyStrategy', 'datacenter1': {count}}}"
    )
    first.query(f"CREATE TABLE IF NOT EXISTS {TABLE} (id int PRIMARY KEY, n int)")
    for node in nodes:
        # Several keys, since the first replica differs by key.
        for key in range(4):
            for each in ("LOCAL_SERIAL", level):
                node.query(f"SELECT n FROM {TABLE} WHERE id = {key}", each)


def make_role(host):
    """One that may make keyspaces, and is spared no limit: engines hold superusers to few."""
    superuser = Node(host, SUPERUSER)
    name, password = ROLE
    superuser.query(f"CREATE ROLE IF NOT EXISTS {name} WITH PASSWORD = '{password}' AND LOGIN = true")
    superuser.query(f"GRANT CREATE ON ALL KEYSPACES TO {name}")


def log_in(hosts):
    try:
        Node(hosts[0], ROLE).query("SELECT key FROM system.local")
    except Refused:
        make_role(hosts[0])
    return [Node(host, ROLE) for host in hosts]


def main():
    count, level, hosts = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    try:
        if level == "NONE":
            for host in hosts:
                Node(host)
        else:
            work_together(log_in(hosts), count, level)
    except (OSError, Refused, struct.error) as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
