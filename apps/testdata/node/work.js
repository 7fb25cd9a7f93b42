// Node: timers, promises, worker threads with shared memory and messages,
// streams through a child process and through zlib, the garbage collector.
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { spawn } = require('child_process');
const { createHash } = require('crypto');
const { createInterface } = require('readline');
const { Readable } = require('stream');
const { pipeline } = require('stream/promises');
const fs = require('fs');
const zlib = require('zlib');

if (!isMainThread) {
  const shared = new Int32Array(workerData.shared);
  parentPort.on('message', ({ round, n }) => {
    let s = round + 1;
    for (let i = 0; i < n; i++) s = (Math.imul(s, 1103515245) + 12345) >>> 0;
    Atomics.add(shared, 0, 1);
    parentPort.postMessage({ round, s });
  });
  return;
}

const ROUNDS = 250;

async function main() {
  const shared = new SharedArrayBuffer(4);
  const workers = [1, 2, 3].map(() => new Worker(__filename, { workerData: { shared } }));
  for (const w of workers) w.on('error', (e) => { console.error(e); process.exit(1); });
  const ask = (w, msg) => new Promise((ok) => {
    w.once('message', ok);
    w.postMessage(msg);
  });
  const child = spawn('sh', ['-c', 'while read -r a b; do echo $((a * 3 + ${#b})); done'], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const progress = fs.openSync('progress', 'w');
  const digest = createHash('sha256');
  let ticks = 0;
  const ticker = setInterval(() => ticks++, 5);
  const heap = [];
  for (let round = 0; round < ROUNDS; round++) {
    const answers = await Promise.all(workers.map((w, i) => ask(w, { round: round * 3 + i, n: 200000 })));
    child.stdin.write(`${round} ${'x'.repeat(round)}\n`);
    const { value } = await lines.next();
    const packed = [];
    await pipeline(
      Readable.from(Array.from({ length: 20 }, (_, i) => `line ${i} of round ${round}\n`.repeat(50))),
      zlib.createGzip({ level: 6 }), zlib.createGunzip(),
      async function* (source) {
        const h = createHash('md5');
        for await (const chunk of source) h.update(chunk);
        yield h.digest('hex');
      },
      async (source) => { for await (const x of source) packed.push(x); });
    heap.push(Array.from({ length: 2000 }, (_, i) => ({ i, name: `object ${i} ${round}` })));
    if (heap.length > 20) heap.shift();
    await new Promise((ok) => setTimeout(ok, 3));
    digest.update(JSON.stringify([answers, value, packed, heap.length, heap[0][7]]));
    fs.writeSync(progress, `${round}\n`);
  }
  clearInterval(ticker);
  child.stdin.end();
  const code = await new Promise((ok) => child.once('close', ok));
  await Promise.all(workers.map((w) => w.terminate()));
  console.log(digest.digest('hex'), code, new Int32Array(shared)[0], ticks > 10 ? 'ticked' : `only ${ticks} ticks`);
}

main().catch((e) => { console.error(e); process.exit(1); });
