// A key-value store in JavaScript: the typed door of wit/vnode.wit, and nothing of the Rust SDK.
//
// Its twins in Python and in Rust (tests/guests/polyglot) are other versions of the same guest: they describe the same commands,
// and read what this one stores.

import { count, delete as del, get, put, scan } from 'vnode:host/store@0.1.0';

const NAME = 'polyglot';
const PAGE_ROWS = 100;
const SCAN_COUNT = 10;
const SCAN_COUNT_MAX = 1000;
const INVALID = 'value is not an integer or out of range';

const ONE_KEY = { first: 1, last: 1, step: 1, prefix: '' };
const ALL_KEYS = { first: 1, last: -1, step: 1, prefix: '' };

const spec = (name, arity, kind, syntax, summary, keys, aggregate = 'single', blind = false) => ({
  name, summary, syntax, arity, kind, keys, blind, aggregate, n: undefined, r: undefined, w: undefined,
});

const COMMANDS = [
  spec('GET', 2, 'read', 'key', 'Get a value', ONE_KEY),
  spec('SET', -3, 'write', 'key value', 'Set a value', ONE_KEY, 'single', true),
  spec('DEL', -2, 'write', 'key [key ...]', 'Delete keys', ALL_KEYS, 'sum'),
  spec('INCR', 2, 'write', 'key', 'Add one to a number', ONE_KEY),
  spec('BOOM', 2, 'write', 'key', 'Write a key, then fail', ONE_KEY),
  spec('KEYS', 1, 'coverage', '', 'List all keys', undefined, 'concat'),
  spec('DBSIZE', 1, 'coverage', '', 'Count all keys', undefined, 'sum'),
  spec('SCAN', -2, 'coverage', 'cursor [COUNT n]', 'List keys by pages', undefined, 'cursor'),
];

const nil = { tag: 'nil' };
const bulk = (val) => ({ tag: 'bulk', val });
const integer = (val) => ({ tag: 'integer', val: BigInt(val) });
const simple = (val) => ({ tag: 'simple', val });

// What is thrown and is no Error is the `error` of the contract; an Error is a trap.
const refusal = (message) => ({ code: 'ERR', message });

export const vnode = {
  describe: () => ({
    name: NAME, version: '1.2.0', schemaReadsFrom: 1, schemaWrites: 1, merge: 'last-write',
    commands: COMMANDS, n: undefined, r: undefined, w: undefined,
  }),

  init(identity) {
    if (identity.service !== NAME) throw `started as ${identity.service}`;
  },

  handle({ name, args }) {
    switch (name) {
      case 'GET': {
        const value = get(args[0]);
        return [value === undefined ? nil : bulk(value)];
      }
      case 'SET':
        if (args.length > 2) throw refusal('syntax error');
        put(args[0], args[1]);
        return [simple('OK')];
      case 'DEL':
        return [integer(args.filter((key) => del(key)).length)];
      case 'INCR': {
        const value = get(args[0]);
        const next = (value === undefined ? 0n : number(value)) + 1n;
        if (!fits(next)) throw refusal('increment or decrement would overflow');
        put(args[0], new TextEncoder().encode(next.toString()));
        return [integer(next)];
      }
      case 'BOOM':
        put(args[0], new TextEncoder().encode('never seen'));
        throw new Error('boom');
      default:
        throw refusal(`command '${name}' is declared but not handled`);
    }
  },

  handleCoverage({ name, args }, cursor) {
    if (name === 'DBSIZE') return { items: [integer(count())], next: undefined };
    const page = scan(cursor, name === 'KEYS' ? PAGE_ROWS : scanCount(args), 'keys');
    return { items: page.rows.map((row) => bulk(row.key)), next: page.next };
  },

  merge: (_key, values) => values[0],
};

const fits = (big) => BigInt.asIntN(64, big) === big;

// The number that the bytes spell, as each of the three writes it.
function number(value) {
  const text = new TextDecoder().decode(value);
  const big = /^-?[0-9]+$/.test(text) ? BigInt(text) : undefined;
  if (big === undefined || big.toString() !== text || !fits(big)) throw refusal(INVALID);
  return big;
}

function scanCount(args) {
  if (args.length === 1) return SCAN_COUNT;
  const text = args.map((arg) => new TextDecoder().decode(arg));
  if (text.length !== 3 || text[1].toUpperCase() !== 'COUNT') throw refusal('syntax error');
  const asked = /^[0-9]+$/.test(text[2]) ? Number(text[2]) : 0;
  if (asked < 1) throw refusal(INVALID);
  return Math.min(asked, SCAN_COUNT_MAX);
}
