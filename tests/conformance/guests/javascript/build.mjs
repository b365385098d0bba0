// Makes a component of app.js: node build.mjs SOURCE WIT-FOLDER OUTPUT
//
// It runs as a copy beside node_modules, where it finds its package. With every feature off the engine asks for
// nothing of WASI.

import { readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { componentize } from '@bytecodealliance/componentize-js';

const [sourcePath, wit, output] = process.argv.slice(2);
// The contract as one text: its files are parts of one package.
const names = (await readdir(wit)).filter((name) => name.endsWith('.wit')).sort();
const texts = await Promise.all(names.map((name) => readFile(join(wit, name), 'utf8')));
const [name] = texts[0].match(/^package .*$/m);
const witWorld = [name, ...texts.map((text) => text.replace(/^package .*$/m, ''))].join('\n');
const { component } = await componentize({
  sourcePath,
  witWorld,
  worldName: 'guest',
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});
await writeFile(output, component);
