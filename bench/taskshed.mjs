// taskshed as its peers are measured, as bench/peer.mjs describes: only the client that adds tasks.
import pg from 'pg';
import { connection, feed, main, now, params, ready } from './peer.mjs';

const db = new pg.Pool({ ...connection, user: 'bench', max: 20 });
const add = (n) => db.query({
  name: 'add',
  text: "SELECT taskshed.add_task('public.effect', kwargs => jsonb_build_object('n', $1::integer), group_id => $2)",
  values: [n, params.group],
});

await main({
  // The worker is there afterwards, and the connections.
  async feed() {
    await Promise.all(Array.from({ length: 20 }, () => add(-1)));
    await ready();
    const started = now();
    await feed(add);
    return { done: params.n, seconds: (now() - started) / 1000 };
  },
});
