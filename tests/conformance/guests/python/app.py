"""A key-value store in Python: the typed door of wit/vnode.wit, and nothing of the Rust SDK.

Its twins in JavaScript and in Rust (tests/guests/polyglot) are other versions of the same guest: they describe the same
commands, and read what this one stores.
"""

from typing import List, Optional

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.vnode import (
    Aggregate,
    CommandKind,
    CommandSpec,
    CoveragePage,
    Descriptor,
    Identity,
    KeyRange,
    MergePolicy,
)
from wit_world.imports import store
from wit_world.imports.store import Projection
from wit_world.imports.types import (
    Command,
    Error,
    Node,
    Node_Bulk,
    Node_Integer,
    Node_Nil,
    Node_Simple,
)

NAME = "polyglot"
PAGE_ROWS = 100
SCAN_COUNT = 10
SCAN_COUNT_MAX = 1000
INT_MAX = 2**63 - 1
INVALID = "value is not an integer or out of range"


def spec(name, arity, kind, syntax, summary, keys=None, aggregate=Aggregate.SINGLE, blind=False):
    return CommandSpec(name, summary, syntax, arity, kind, keys, blind, aggregate, None, None, None)


ONE_KEY = KeyRange(1, 1, 1, "")
ALL_KEYS = KeyRange(1, -1, 1, "")

COMMANDS = [
    spec("GET", 2, CommandKind.READ, "key", "Get a value", ONE_KEY),
    spec("SET", -3, CommandKind.WRITE, "key value", "Set a value", ONE_KEY, blind=True),
    spec("DEL", -2, CommandKind.WRITE, "key [key ...]", "Delete keys", ALL_KEYS, Aggregate.SUM),
    spec("INCR", 2, CommandKind.WRITE, "key", "Add one to a number", ONE_KEY),
    spec("BOOM", 2, CommandKind.WRITE, "key", "Write a key, then fail", ONE_KEY),
    spec("KEYS", 1, CommandKind.COVERAGE, "", "List all keys", None, Aggregate.CONCAT),
    spec("DBSIZE", 1, CommandKind.COVERAGE, "", "Count all keys", None, Aggregate.SUM),
    spec("SCAN", -2, CommandKind.COVERAGE, "cursor [COUNT n]", "List keys by pages", None, Aggregate.CURSOR),
]


def refuse(message: str) -> Err:
    return Err(Error("ERR", message))


class Vnode(exports.Vnode):
    def describe(self) -> Descriptor:
        return Descriptor(NAME, "1.1.0", 1, 1, MergePolicy.LAST_WRITE, COMMANDS, None, None, None)

    def init(self, identity: Identity) -> None:
        if identity.service != NAME:
            raise Err(f"started as {identity.service}")

    def handle(self, command: Command) -> List[Node]:
        args = command.args
        if command.name == "GET":
            value = store.get(args[0])
            return [Node_Nil() if value is None else Node_Bulk(value)]
        if command.name == "SET":
            if len(args) > 2:
                raise refuse("syntax error")
            store.put(args[0], args[1])
            return [Node_Simple("OK")]
        if command.name == "DEL":
            return [Node_Integer(sum(store.delete(key) for key in args))]
        if command.name == "INCR":
            value = store.get(args[0])
            following = 1 if value is None else integer(value) + 1
            if following > INT_MAX:
                raise refuse("increment or decrement would overflow")
            store.put(args[0], str(following).encode())
            return [Node_Integer(following)]
        if command.name == "BOOM":
            store.put(args[0], b"never seen")
            raise RuntimeError("boom")
        raise refuse(f"command '{command.name}' is declared but not handled")

    def handle_coverage(self, command: Command, cursor: Optional[bytes]) -> CoveragePage:
        if command.name == "DBSIZE":
            return CoveragePage([Node_Integer(store.count())], None)
        rows = PAGE_ROWS if command.name == "KEYS" else scan_count(command.args)
        page = store.scan(cursor, rows, Projection.KEYS)
        return CoveragePage([Node_Bulk(row.key) for row in page.rows], page.next)

    def merge(self, key: bytes, values: List[bytes]) -> bytes:
        return values[0]


def integer(value: bytes) -> int:
    """The number that the bytes spell, as each of the three writes it."""
    try:
        number = int(value)
    except ValueError:
        raise refuse(INVALID)
    if str(number).encode() != value or not -INT_MAX - 1 <= number <= INT_MAX:
        raise refuse(INVALID)
    return number


def scan_count(args: List[bytes]) -> int:
    if len(args) == 1:
        return SCAN_COUNT
    if len(args) != 3 or args[1].upper() != b"COUNT":
        raise refuse("syntax error")
    if not args[2].isdigit() or int(args[2]) < 1:
        raise refuse(INVALID)
    return min(int(args[2]), SCAN_COUNT_MAX)
