// pg-boss, as bench/peer.mjs describes.
//
// "best": several workers that fetch and complete batches, and go on fetching while these come back
// full; workers are woken by NOTIFY.  Otherwise its defaults: one job every time it polls, which is
// every two seconds.
import { PgBoss } from 'pg-boss';
import { Count, connection, feed, insert, lags, line, main, now, params, pool, ready, warm } from './peer.mjs';

const db = pool(12);

// It keeps what it has done; each measurement begins with an empty schema.
await db.query('DROP SCHEMA IF EXISTS pgboss CASCADE');
const boss = new PgBoss({ ...connection, max: 10, useListenNotify: Boolean(params.best) });
boss.on('error', (error) => console.error(error));
await boss.start();

const queue = `q${process.pid}`;
await boss.createQueue(queue, { notify: Boolean(params.best) });

async function add(n, startAfter) {
  for (let i = 0; i < n; i += 10000) {
    const some = Math.min(10000, n - i);
    await boss.insert(queue, Array.from({ length: some }, (_, j) => ({ data: { n: i + j }, startAfter })));
  }
}

const best = { batchSize: 2000, localConcurrency: 3, burstWhenBatchFull: true };
const prompt = { batchSize: 10, pollingIntervalSeconds: 0.5, notifyPollingIntervalSeconds: 0.5 };

await main({
  async drain() {
    const count = new Count();
    await add(params.n);
    await db.query('VACUUM ANALYZE');
    await warm(db, 12);
    await db.query('TRUNCATE public.ledger');
    await ready();
    count.start();
    await boss.work(queue, params.best ? best : {}, async (list) => {
      await Promise.all(list.map(async (job) => {
        if (params.insert) await insert(db, job.data.n);
        count.one();
      }));
    });
    const result = await count.result();
    await boss.stop({ graceful: true, timeout: 5000 });
    return result;
  },

  // Jobs for now, added one by one.
  async feed() {
    let count = new Count();
    const begin = (n) => { count = new Count(); params.n = n; count.start(); };
    const n = params.n;
    const one = (i) => boss.send(queue, { n: i });
    await warm(db, 12);
    await boss.work(queue, params.best ? best : prompt, async (list) => {
      await Promise.all(list.map(async (job) => {
        await insert(db, job.data.n);
        count.one();
      }));
    });
    begin(20);
    await Promise.all(Array.from({ length: 20 }, () => one(-1)));
    await count.result();
    await db.query('TRUNCATE public.ledger');
    await ready();
    begin(n);
    await feed(one, () => count.late);
    const result = await count.result();
    await boss.stop({ graceful: true, timeout: 5000 });
    return result;
  },

  async lag() {
    const starts = new Map();
    await boss.work(queue, params.best ? prompt : {}, async (list) => {
      const t = now();
      for (const job of list) starts.set(job.data.n, t);
    });
    await ready();
    const result = await lags(
      async (times, i) => boss.insert(queue, times.map((t, j) =>
        ({ data: { n: i ?? j }, startAfter: t === undefined ? undefined : new Date(t) }))), starts);
    await boss.stop({ graceful: false });
    return result;
  },

  async idle() {
    await add(params.n, new Date(Date.now() + 864e5));
    await boss.work(queue, {}, async () => {});
    await ready();
    await line();
    return {};
  },

  async add() {
    const list = Array.from({ length: params.n }, (_, n) => ({ data: { n }, startAfter: new Date(Date.now() + 864e5) }));
    await ready();
    const started = now();
    await boss.insert(queue, list);
    return { done: params.n, seconds: (now() - started) / 1000 };
  },
});
