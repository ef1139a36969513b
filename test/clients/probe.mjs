// What docs/clients.md says in its tables of one of the clients for Node.js, looked up: "probe.mjs pg" prints a line for
// each point. There is a task "monthly" with an interval of a month, which ends never.

const client = process.argv[2];
const ids = [];
const run_at = new Date('2100-01-01T00:00Z');
const tasks = [{ callback: 'send_invoice', run_at, kwargs: { customer_id: 1 }, task_id: 'probe' }];

function text(value) {
  if (value instanceof Date) return `Date ${Number.isNaN(value.getTime()) ? 'invalid' : value.toISOString()}`;
  if (typeof value === 'number' || typeof value === 'bigint') return `${typeof value} ${value}`;
  return JSON.stringify(value);
}

async function show(what, get) {
  try {
    console.log(`${what}: ${text(await get())}`);
  } catch (error) {
    const message = error.meta?.driverAdapterError?.cause?.kind ?? error.cause?.message ?? error.message;
    console.log(`${what}: error ${message.split('\n')[0]}`);
  }
}

// Each client's way to the first value of a query; "$" stands for a place of a value.
let first;
let list = (value) => value;
let json = (value) => value;
let end;
if (client === 'pg') {
  const pg = (await import('pg')).default;
  const pool = new pg.Pool();
  first = async (parts, ...values) =>
    Object.values((await pool.query(parts.reduce((query, part, i) => `${query}$${i}${part}`), values)).rows[0])[0];
  end = () => pool.end();
} else if (client === 'postgres') {
  const sql = (await import('postgres')).default();
  first = async (parts, ...values) => Object.values((await sql(parts, ...values))[0])[0];
  json = (value) => sql.json(value);
  end = () => sql.end();
} else if (client === 'drizzle' || client === 'drizzle-postgres') {
  const { sql } = await import('drizzle-orm');
  const which = client === 'drizzle' ? 'node-postgres' : 'postgres-js';
  const db = (await import(`drizzle-orm/${which}`)).drizzle(process.env.DATABASE_URL);
  first = async (parts, ...values) => {
    const result = await db.execute(sql(parts, ...values));
    return Object.values((result.rows ?? result)[0])[0];
  };
  list = (value) => sql.param(value);
  json = (value) => JSON.stringify(value);
  end = () => db.$client.end();
} else {
  const { PrismaPg } = await import('@prisma/adapter-pg');
  const { PrismaClient } = await import('@prisma/client');
  const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: process.env.DATABASE_URL }) });
  first = async (parts, ...values) => Object.values((await prisma.$queryRaw(parts, ...values))[0])[0];
  end = () => prisma.$disconnect();
}

await show('every', () => first`SELECT every FROM taskshed.tasks WHERE task_id = 'monthly'`);
await show('seconds', () => first`SELECT extract(epoch FROM every)::float8 FROM taskshed.tasks WHERE task_id = 'monthly'`);
await show('run_count', () => first`SELECT run_count FROM taskshed.tasks WHERE task_id = 'monthly'`);
await show('until', () => first`SELECT until FROM taskshed.tasks WHERE task_id = 'monthly'`);
await show('run_at', () => first`SELECT run_at FROM taskshed.tasks WHERE task_id = 'monthly'`);
await show('kwargs', () => first`SELECT kwargs FROM taskshed.tasks WHERE task_id = 'monthly'`);
await show('Date', () => first`SELECT taskshed.update_execution_time('monthly', ${run_at})`);
await show('object', () => first`SELECT taskshed.add_task('send_invoice', '2100-01-01', ${{ customer_id: 1 }}, task_id => 'probe')`);
await show(
  'text',
  () => first`SELECT taskshed.add_task('send_invoice', '2100-01-01', ${JSON.stringify({ customer_id: 1 })}::jsonb, task_id => 'probe')`,
);
await show('undefined', () => first`SELECT taskshed.describe('0 9 * * *', timezone => ${undefined})`);
await show('tasks', () => first`SELECT taskshed.add_tasks(${tasks})`);
await show('tasks as text', () => first`SELECT taskshed.add_tasks(${JSON.stringify(tasks)}::jsonb)`);
await show('no tasks', () => first`SELECT taskshed.add_tasks(${[]})`);
await show('plain list', () => first`SELECT taskshed.remove_tasks(${['probe', 'none']})`);
await show('empty list', () => first`SELECT taskshed.remove_tasks(${list(ids)})`);
await show('null', () => first`SELECT taskshed.remove_tasks(${null})`);
await show('void', () => first`SELECT taskshed.add_callback('probe', 'send_invoice', true)`);
try {
  await first`SELECT taskshed.add_task('send_invoice', kwargs => ${json({ custmer_id: 1 })})`;
} catch (error) {
  // (as the page says to get at them)
  const parts = process.env.MISTAKE.split('\n').map((way) => new Function('error', `return ${way}`)(error));
  console.log(`mistake: ${parts.join(' ')}`);
}
await end();
