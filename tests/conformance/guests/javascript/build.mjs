// Makes a component of app.js: node build.mjs SOURCE WIT-FOLDER OUTPUT
//
// It runs as a copy beside node_modules, where it finds its package. With every feature off the engine asks for
// nothing of WASI.

import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const [sourcePath, witPath, output] = process.argv.slice(2);
const { component } = await componentize({
  sourcePath,
  witPath,
  worldName: 'guest',
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});
await writeFile(output, component);
