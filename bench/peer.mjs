// What the two peers from npm share: how bench/run.pl talks to them, and the clock.
//
// A peer is started with what it is to do (drain, lag, feed, idle, add) and a JSON object of parameters.  It
// says "ready" when all that is not to be measured has been done, waits for a line, does the work,
// and prints what it has measured as a line of JSON.  The work of a callback is the same for both:
// nothing at all, or an INSERT of one row through a pool of connections.
import pg from 'pg';
import readline from 'node:readline';

const [what, json] = process.argv.slice(2);
export const params = JSON.parse(json ?? '{}');
export const connection = { host: process.env.PGHOST, user: 'postgres', database: params.database };

// Microseconds of resolution, as clock_timestamp() has, and of the same clock.
export const now = () => performance.timeOrigin + performance.now();
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export function pool(max) {
  const made = new pg.Pool({ ...connection, max });
  return made.on('error', console.error).on('connect', (client) => client.on('error', console.error));
}
export const insert = (p, n) =>
  p.query({ name: 'effect', text: 'INSERT INTO public.ledger (n) VALUES ($1)', values: [n] });
// Connects all of a pool's connections, and has the statement prepared in each.
export async function warm(p, max) {
  const clients = await Promise.all(Array.from({ length: max }, () => p.connect()));
  await Promise.all(clients.map((client) => insert(client, -1)));
  for (const client of clients) client.release();
}

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
export const line = () => lines.next();
let cpuBefore;
export async function ready() {
  console.log('ready');
  await line();
  cpuBefore = process.cpuUsage();
}

// Counts callbacks, and is over when there were n of them or the time is up: the settings that a peer
// has by default would keep some measurements busy for hours.
export class Count {
  done = 0;
  over = new Promise((resolve) => { this.end = resolve; });
  start() {
    this.started = now();
    if (params.limit_s) this.timer = setTimeout(() => { this.late = true; this.end(); }, params.limit_s * 1000);
  }
  one() {
    if (++this.done === params.n) this.end();
  }
  async result() {
    await this.over;
    clearTimeout(this.timer);
    return { done: this.done, seconds: (now() - this.started) / 1000 };
  }
}

// The lags of n tasks over so many seconds.  Ahead of time: schedule(planned) is called for all of
// them at once.  For now: one after the other, and the lag counts from the moment at which
// schedule() returns, when the client knows that its commit is done.
export async function lags(schedule, starts) {
  const every = (params.span_s * 1000) / params.n;
  const planned = [];
  const begin = now() + 1000;
  if (params.ahead) {
    for (let i = 0; i < params.n; i++) planned.push(begin + i * every);
    await schedule(planned);
  } else {
    for (let i = 0; i < params.n; i++) {
      await sleep(Math.max(0, begin + i * every - now()));
      await schedule([undefined], i);
      planned[i] = now();
    }
  }
  for (let i = 0; starts.size < params.n && i < 600; i++) await sleep(50);
  return { lags: planned.map((t, i) => starts.get(i) - t).filter((lag) => !Number.isNaN(lag)) };
}

// Calls add(0) to add(n - 1) evenly, so many a second, without waiting for one before the next, but for
// 20 at the most.  (A process of Node.js sleeps a millisecond at least: at more than a thousand a second
// some come together.)
export async function feed(add, isOver = () => false) {
  const begin = now();
  const open = new Set();
  for (let i = 0; i < params.n && !isOver(); i++) {
    const ahead = begin + (i * 1000) / params.rate - now();
    if (ahead > 0) await sleep(ahead);
    if (open.size >= 20) await Promise.race(open);
    const one = add(i).finally(() => open.delete(one));
    open.add(one);
  }
  await Promise.all(open);
}

// A CPU share of ours is part of what a peer costs.
export async function main(parts) {
  let result;
  try {
    result = await parts[what]();
  } catch (error) {
    result = { error: String(error) };
  }
  const { user, system } = process.cpuUsage(cpuBefore);
  console.log(JSON.stringify({ ...result, cpu: (user + system) / 1e6 }));
  process.exit(0);
}
