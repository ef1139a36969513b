// graphile-worker, as bench/peer.mjs describes.
//
// "best": jobs are fetched in batches into the process (localQueue), and acknowledged in batches, which
// is what its own documentation recommends for throughput; the concurrency is the one that was fastest on
// two cores.  Otherwise its defaults: one job at a time.
import { run, makeWorkerUtils } from 'graphile-worker';
import { Count, connection, feed, insert, lags, line, main, now, params, pool, ready, sleep, warm } from './peer.mjs';

const silent = { logger: { scope: () => silent.logger, error: console.error, warn() {}, info() {}, debug() {} } };
const best = {
  concurrentJobs: 24,
  maxPoolSize: 26,
  localQueue: { size: 5000 },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0,
};
// For the lag there is nothing to batch: a job is to be fetched as soon as there is one.
const prompt = { concurrentJobs: 4, pollInterval: params.poll_ms ?? 2000 };

const jobs = pool(26);
const utils = await makeWorkerUtils({ pgPool: jobs, ...silent });
await utils.migrate();

const identifier = 'job';
const start = (options, task) =>
  run({ preset: { worker: options }, pgPool: jobs, taskList: { job: task }, noHandleSignals: true, ...silent });

async function add(n, runAt) {
  for (let i = 0; i < n; i += 10000) {
    const some = Math.min(10000, n - i);
    await utils.addJobs(Array.from({ length: some }, (_, j) => ({ identifier, payload: { n: i + j }, runAt })));
  }
}

await main({
  async drain() {
    const effects = pool(params.best ? 24 : 1);
    const count = new Count();
    await jobs.query('DELETE FROM graphile_worker._private_jobs');
    await jobs.query('TRUNCATE public.ledger');
    await add(params.n);
    await jobs.query('VACUUM ANALYZE graphile_worker._private_jobs');
    await warm(effects, params.best ? 24 : 1);
    await jobs.query('TRUNCATE public.ledger');
    await ready();
    count.start();
    const runner = await start(params.best ? best : {}, async (payload) => {
      if (params.insert) await insert(effects, payload.n);
      count.one();
    });
    const result = await count.result();
    // (A runner that is out of time has jobs to give back, and may take its time for that.)
    await Promise.race([runner.stop(), new Promise((resolve) => setTimeout(resolve, 5000))]);
    return result;
  },

  // Jobs for now, added one by one.
  async feed() {
    const effects = pool(24);
    let count = new Count();
    const begin = (n) => { count = new Count(); params.n = n; count.start(); };
    const n = params.n;
    const one = (i) => utils.addJob(identifier, { n: i });
    await jobs.query('DELETE FROM graphile_worker._private_jobs');
    await warm(effects, 24);
    const runner = await start(params.best ? best : prompt, async (payload) => {
      await insert(effects, payload.n);
      count.one();
    });
    begin(20);
    await Promise.all(Array.from({ length: 20 }, () => one(-1)));
    await count.result();
    await jobs.query('TRUNCATE public.ledger');
    await ready();
    begin(n);
    await feed(one, () => count.late);
    const result = await count.result();
    await Promise.race([runner.stop(), sleep(5000)]);
    return result;
  },

  async lag() {
    const starts = new Map();
    await jobs.query('DELETE FROM graphile_worker._private_jobs');
    const runner = await start(params.best ? prompt : {}, async ({ n }) => { starts.set(n, now()); });
    await ready();
    const result = await lags(
      async (times, i) => utils.addJobs(times.map((t, j) =>
        ({ identifier, payload: { n: i ?? j }, runAt: t === undefined ? undefined : new Date(t) }))), starts);
    await runner.stop();
    return result;
  },

  async idle() {
    await jobs.query('DELETE FROM graphile_worker._private_jobs');
    await add(params.n, new Date(Date.now() + 864e5));
    await start(prompt, async () => {});
    await ready();
    await line();
    return {};
  },

  async add() {
    await jobs.query('DELETE FROM graphile_worker._private_jobs');
    await jobs.query('VACUUM ANALYZE graphile_worker._private_jobs');
    const list = Array.from({ length: params.n },
      (_, n) => ({ identifier, payload: { n }, runAt: new Date(Date.now() + 864e5) }));
    await ready();
    const started = now();
    await utils.addJobs(list);
    return { done: params.n, seconds: (now() - started) / 1000 };
  },
});
