"""What the programs here have in common: a message is a line of JSON on standard input or output, with bytes in base64.

Kafka: {"key": B, "value": B, "headers": [[NAME, B]...], "timestamp": ms, "partition": n}; B may be null.
AMQP:  {"body": B, "properties": {...}, "headers": {NAME: value}} with the properties named as in pika. A value is what JSON has, or
       {"bytes": B}, {"time": seconds}, {"table": {...}}.
"""
import base64
import json
import sys
import threading
from datetime import datetime, timezone


def read():
    for line in sys.stdin:
        yield json.loads(line)


def write(message):
    print(json.dumps(message), flush=True)


def end_of_input():
    """Returns an event that is set when whoever started this program closes its standard input."""
    ended = threading.Event()

    def wait():
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    return ended


def encode(data):
    return None if data is None else base64.b64encode(data).decode()


def decode(text):
    return None if text is None else base64.b64decode(text)


def options(args):
    """Options of a client, as NAME=VALUE."""
    return dict(arg.split('=', 1) for arg in args)


def to_table(value, raw=bytes):
    """JSON to what the AMQP clients take as a header; raw is the type of bytes."""
    if isinstance(value, dict):
        (kind, inner), = value.items()
        if kind == 'bytes':
            return raw(decode(inner))
        if kind == 'time':
            return datetime.fromtimestamp(inner, timezone.utc)
        return {name: to_table(v, raw) for name, v in inner.items()}
    if isinstance(value, list):
        return [to_table(v, raw) for v in value]
    return value


def from_table(value):
    if isinstance(value, (bytes, bytearray)):
        return {'bytes': encode(value)}
    if isinstance(value, datetime):
        if value.tzinfo is None:  # pika's
            value = value.replace(tzinfo=timezone.utc)
        return {'time': int(value.timestamp())}
    if isinstance(value, dict):
        return {'table': {name: from_table(v) for name, v in value.items()}}
    if isinstance(value, list):
        return [from_table(v) for v in value]
    return value
