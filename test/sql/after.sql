-- Tasks that run after others: what a session sees without anything being run.
--
-- All times are far ahead, and what would be due is rolled back.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
\pset null '(null)'

CREATE ROLE regress_alice LOGIN;
CREATE ROLE regress_bob LOGIN;
CREATE ROLE regress_both LOGIN IN ROLE regress_alice, regress_bob;
GRANT USAGE ON SCHEMA taskshed TO regress_alice, regress_bob, regress_both;
CREATE SCHEMA after;
GRANT USAGE ON SCHEMA after TO PUBLIC;
SET search_path = after;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION something() RETURNS void LANGUAGE sql AS '';

-- Says why a command is an error.
CREATE PROCEDURE fails(command text) LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	hint text;
	context text;
BEGIN
	EXECUTE command;
	RAISE NOTICE 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
	RAISE NOTICE '% %', state, message || coalesce(E'\nHINT:  ' || nullif(hint, ''), '') || coalesce(E'\nCONTEXT:  ' || substring(context FROM '^element \d+ of tasks'), '');
END $$;
-- What is to be seen of tasks
CREATE VIEW seen AS SELECT task_id, run_type, state, run_at, after, after_status, waiting_for FROM taskshed.tasks ORDER BY task_id COLLATE "C";
CREATE VIEW progress AS SELECT task_id, parents, ended, succeeded, failed, "left" FROM taskshed.followers ORDER BY task_id COLLATE "C";
-- How many tasks are told of, for those that are gone
CREATE FUNCTION left_over() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM _taskshed.edge';
-- Adds tasks that are far ahead, or paused, and returns how many.
GRANT SELECT ON seen, progress TO PUBLIC;
CREATE FUNCTION add(VARIADIC ids text[]) RETURNS integer LANGUAGE sql AS $$
	SELECT count(taskshed.add_task('nothing', '2100-01-01', task_id => id))::integer FROM unnest(ids) AS id;
$$;
-- Has a task have failed, or ended for good.
CREATE PROCEDURE fail(name text) LANGUAGE sql SECURITY DEFINER AS $$
	UPDATE _taskshed.alarm SET failed_at = now(), last_status = 'failed', last_sqlstate = '22012', last_error = 'division by zero'
	WHERE id = (SELECT id FROM _taskshed.task WHERE task_id = name);
$$;
-- Has a task have ended, for one that runs after it.
CREATE PROCEDURE mark(child_id text, parent_id text, how text DEFAULT 'succeeded') LANGUAGE sql SECURITY DEFINER AS $$
	UPDATE _taskshed.edge SET done_at = '2100-01-01', run_at = '2100-01-01', status = how
	WHERE child = (SELECT id FROM _taskshed.task WHERE task_id = child_id) AND task_id = parent_id;
$$;

-- ------------------------------------------------------------------------
-- What waits, and for what

SELECT add('a', 'b');
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{b,a}');
SELECT taskshed.add_task('nothing', task_id => 'ended', after => '{c,a}', after_status => 'ended');
SELECT taskshed.add_task('nothing', task_id => 'failed', after => '{a}', after_status => 'failed', paused => true);
SELECT taskshed.add_task('nothing', '2100-01-02', task_id => 'later', after => '{a}', after_status => 'succeeded');
SELECT * FROM seen;
SELECT * FROM progress;
SELECT task_id, state, next, parents FROM (SELECT task_id, state, run_at IS NULL AS next, after AS parents FROM taskshed.fetch_tasks()) AS t;
SELECT task_id, state, after, waiting_for FROM taskshed.fetch_task('c');
SELECT count(*) FROM taskshed.parent_results();

-- It does not run by itself, and a status that counts what is due does not count it.
SELECT due, oldest_due FROM taskshed.status WHERE database = current_database();
SELECT taskshed.next_runs(task_id => 'c');
SELECT taskshed.next_runs(task_id => 'later');

-- What has become of parents is seen.
CALL mark('c', 'a');
CALL mark('ended', 'a', 'timeout');
SELECT task_id, waiting_for FROM seen WHERE after IS NOT NULL;
SELECT * FROM progress;
CALL mark('c', 'a', 'cancelled');
CALL mark('ended', 'a', 'skipped');
SELECT task_id, waiting_for FROM seen WHERE after IS NOT NULL;
SELECT * FROM progress;
SELECT taskshed.remove_all_tasks();

-- So many are named, and all are counted.
SELECT count(add('p' || to_char(n, 'FM000'))) FROM generate_series(1, 120) n;
SELECT taskshed.add_task('nothing', task_id => 'c', after => array_agg(task_id ORDER BY task_id DESC)) FROM taskshed.tasks;
SELECT task_id, after[1], cardinality(after), waiting_for[20] FROM seen WHERE task_id = 'c';
SELECT * FROM progress;
SELECT taskshed.remove_all_tasks();

-- run_type follows from the parents.
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => 'daily');
SELECT taskshed.add_task('nothing', '2100-01-01', run_type => 'recurring', every => '1 hour', task_id => 'hourly');
SELECT add('once');
SELECT taskshed.add_task('nothing', task_id => 'l', after => '{daily,hourly}');
SELECT taskshed.add_task('nothing', task_id => 'l2', after => '{l}');
SELECT taskshed.add_task('nothing', task_id => 'l3', after => '{l}', run_type => 'recurring');
SELECT taskshed.add_task('nothing', task_id => 'o', after => '{daily,once}');
SELECT taskshed.add_task('nothing', task_id => 'o2', after => '{l}', run_type => 'once');
SELECT taskshed.add_task('nothing', task_id => 'o3', after => '{o2}');
SELECT * FROM seen;
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{daily,once}', run_type => 'recurring')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{o2}', run_type => 'recurring')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{daily}', every => '1 day')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{once}', every => '1 day')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{daily}', schedule => '0 3 * * *')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after_group => 'g', every => '1 day')$$);
SELECT taskshed.remove_all_tasks();

-- ------------------------------------------------------------------------
-- In one call

-- The order in the array does not matter, nor does that of the names.
SELECT taskshed.add_tasks('[
	{"callback": "nothing", "task_id": "fin", "after": ["m", "z"], "group_id": "g"},
	{"callback": "nothing", "task_id": "m", "after": ["a"]},
	{"callback": "nothing", "task_id": "z", "run_at": "2100-01-01"},
	{"callback": "nothing", "task_id": "a", "run_at": "2100-01-01"},
	{"callback": "nothing", "task_id": "last", "after": ["fin"], "after_status": "ended"},
	{"callback": "nothing", "task_id": "first", "run_at": "2100-01-01", "before": ["a2", "m"]},
	{"callback": "nothing", "task_id": "a2", "after": ["z"]}]');
SELECT * FROM seen;
SELECT * FROM progress;
SELECT array_agg(task_id) AS "those that wait last" FROM taskshed.fetch_tasks();
SELECT taskshed.remove_all_tasks();
-- A task that recurs makes those behind it recur, in whatever order.
SELECT taskshed.add_tasks('[
	{"callback": "nothing", "task_id": "l2", "after": ["l1"]},
	{"callback": "nothing", "task_id": "l1", "after": ["daily"]},
	{"callback": "nothing", "task_id": "daily", "run_at": "2100-01-01", "every": "1 day"}]');
SELECT task_id, run_type, state, after FROM seen;
CALL fails($$SELECT taskshed.add_tasks('[
	{"callback": "nothing", "task_id": "l3", "after": ["l1", "o1"], "run_type": "recurring"},
	{"callback": "nothing", "task_id": "o1", "run_at": "2100-01-01"}]')$$);
SELECT taskshed.remove_all_tasks();

-- after_group: what the group has when the call is over, the task itself not
SELECT taskshed.add_tasks('[
	{"callback": "nothing", "group_id": "g", "task_id": "fin", "after_group": "g", "after_status": "ended"},
	{"callback": "nothing", "group_id": "g", "task_id": "i2", "run_at": "2100-01-01"},
	{"callback": "nothing", "group_id": "h", "task_id": "i3", "run_at": "2100-01-01"},
	{"callback": "nothing", "group_id": "g", "task_id": "i1", "run_at": "2100-01-01"}]');
SELECT taskshed.add_task('nothing', task_id => 'fin2', after_group => 'g');
SELECT taskshed.add_task('nothing', task_id => 'fin3', after_group => 'g', after => '{i3,i1}');
SELECT task_id, state, after FROM seen;
-- A task that leaves the group in the call is not in it, and one that comes is.
SELECT taskshed.add_tasks('[
	{"callback": "nothing", "task_id": "fin4", "after_group": "g"},
	{"callback": "nothing", "group_id": "g", "task_id": "i3", "run_at": "2100-01-01"},
	{"callback": "nothing", "group_id": "h", "task_id": "i1", "run_at": "2100-01-01"}]');
SELECT task_id, state, after FROM seen WHERE task_id = 'fin4';
-- One that is replaced, and is in the group, does not run after itself.
SELECT taskshed.add_task('nothing', task_id => 'i2', group_id => 'g', after_group => 'h');
SELECT task_id, state, after FROM seen WHERE task_id = 'i2';
SELECT taskshed.remove_all_tasks();

-- An empty one is over: the task is due at once, or when its time comes.
BEGIN;
SELECT taskshed.add_task('nothing', task_id => 'now', after_group => 'nobody');
SELECT taskshed.add_task('nothing', task_id => 'itself', group_id => 'g', after_group => 'g');
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'then', after_group => 'nobody');
SELECT taskshed.add_task('nothing', task_id => 'none', after => '{}');
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'none then', after => '{}', before => '{}', after_status => 'ended');
SELECT task_id, state, CASE WHEN run_at > now() + interval '1 day' THEN run_at END AS run_at, after, after_status FROM seen;
ROLLBACK;

-- ------------------------------------------------------------------------
-- What cannot be

SELECT add('a', 'b');
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'alice''s', owner => 'regress_alice');
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{a,nobody}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', before => '{nobody}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{a,b,a}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', before => '{a,a}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{a,x}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'a', after => '{a}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'a', before => '{a}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{a}', before => '{x}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{NULL}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{a,NULL}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', before => '{NULL}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{a}', after_status => 'done')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{a}', after_status => '')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', after_status => 'ended')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{alice''s}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{a}', owner => 'regress_alice')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', before => '{a}')$$);
-- In add_tasks the element is named, once.
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "x", "after": ["a"]}, {"callback": "nothing", "task_id": "y", "after": ["x", "z"]}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "x", "after": ["x"]}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "x", "after": ["y"]}, {"callback": "nothing", "task_id": "y", "after": ["x"]}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "x", "after": ["y"]}, {"callback": "nothing", "task_id": "y", "after": ["z"]}, {"callback": "nothing", "task_id": "z", "before": ["y"], "after": ["x"]}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "x", "after": ["a", null]}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "x", "after": "a"}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "x", "after": {"a": 1}}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "x", "after": [1]}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "x", "group_id": "g", "after_group": "g"}, {"callback": "nothing", "task_id": "y", "group_id": "g", "after_group": "g"}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "x", "after": ["y"]}, {"callback": "nothing", "task_id": "y", "run_at": "2100-01-01", "owner": "regress_alice"}]')$$);
SELECT taskshed.remove_all_tasks('regress_alice');
-- Nothing is left of it.
SELECT task_id FROM seen;
SELECT left_over();

-- Circles through tasks that are there
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{b}');
SELECT taskshed.add_task('nothing', task_id => 'd', after => '{c}');
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'b', after => '{d}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'c', after => '{b,d}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{d}', before => '{c}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'd', after => '{c}', before => '{c}')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "b", "after": ["x"]}, {"callback": "nothing", "task_id": "x", "after": ["d"]}]')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'b', group_id => 'g', after_group => 'g', before => '{d}') FROM taskshed.add_task('nothing', task_id => 'd', group_id => 'g', after => '{c}')$$);
-- but not two ways to the same one
SELECT taskshed.add_task('nothing', task_id => 'd', after => '{b,c}');
SELECT taskshed.add_task('nothing', task_id => 'x', after => '{b}', before => '{c,d}');
SELECT task_id, after FROM seen WHERE after IS NOT NULL;
-- and a circle that is opened first is none.
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'd');
SELECT taskshed.add_task('nothing', task_id => 'b', after => '{d}');
SELECT task_id, state, after FROM seen;
SELECT taskshed.remove_all_tasks();

-- before: only what waits can be made to wait for more, and only for what recurs as it does.
SELECT add('a', 'b');
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => 'daily');
SELECT taskshed.add_task('nothing', task_id => 'lasting', after => '{daily}');
SELECT taskshed.add_task('nothing', task_id => 'waits', after => '{a}');
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', before => '{b}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', before => '{waits,b}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', before => '{daily}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', before => '{lasting}')$$);
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => 'x', before => '{lasting,waits}');
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'y', before => '{waits}');
-- again, and one that was there already
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'y', before => '{waits}');
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'b', before => '{waits}');
SELECT * FROM seen;
-- One that has failed does not wait either; nor does one that replace_existing leaves as it is join.
CALL fail('waits');
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'z', before => '{waits}')$$);
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'a', before => '{lasting}', replace_existing => false);
SELECT task_id, state, after FROM seen WHERE after IS NOT NULL;
SELECT taskshed.remove_all_tasks();

-- ------------------------------------------------------------------------
-- Replacing

SELECT add('a', 'b', 'd');
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{a,b}');
CALL mark('c', 'a');
-- What has come is kept with the same parents,
SELECT taskshed.add_task('something', task_id => 'c', after => '{b,a}', after_status => 'ended');
SELECT task_id, state, after, after_status, waiting_for FROM seen WHERE task_id = 'c';
-- also of those that stay,
SELECT taskshed.add_task('something', task_id => 'c', after => '{a,d}');
SELECT task_id, state, after, after_status, waiting_for FROM seen WHERE task_id = 'c';
-- and is gone with those that do not.
SELECT taskshed.add_task('something', task_id => 'c', after => '{b,d}');
SELECT taskshed.add_task('something', task_id => 'c', after => '{b,a}');
SELECT task_id, state, after, waiting_for FROM seen WHERE task_id = 'c';
-- Without parents it waits no more; and can be made to wait again.
SELECT taskshed.add_task('nothing', '2100-01-02', task_id => 'c');
SELECT * FROM seen WHERE task_id = 'c';
SELECT left_over();
SELECT taskshed.add_task('nothing', '2100-01-02', task_id => 'c', after => '{b}');
SELECT * FROM seen WHERE task_id = 'c';
BEGIN;
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{}');
SELECT task_id, state, run_at <= now() AS past, after FROM seen WHERE task_id = 'c';
ROLLBACK;
BEGIN;
SELECT taskshed.add_task('nothing', task_id => 'c', after_group => 'nobody');
SELECT task_id, state, run_at <= now() AS past, after FROM seen WHERE task_id = 'c';
ROLLBACK;
-- What is to be left as it is waits for what it has waited for, whatever is said.
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{a}', replace_existing => false);
SELECT taskshed.add_task('nothing', '2100-01-03', task_id => 'c', replace_existing => false);
SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "c"}]', replace_existing => false);
SELECT * FROM seen WHERE task_id = 'c';
-- If all that is left has come, it is due; if it cannot come, it is skipped.
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{a,b}', paused => true);
CALL mark('c', 'a');
BEGIN;
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{a}');
SELECT task_id, state, run_at <= now() AS past, after, waiting_for FROM seen WHERE task_id = 'c';
ROLLBACK;
BEGIN;
SELECT taskshed.add_task('nothing', task_id => 'e', after => '{c}', after_status => 'ended', paused => true);
SELECT taskshed.add_task('nothing', task_id => 'f', after => '{c}', paused => true);
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{a}', after_status => 'failed');
SELECT task_id, state, run_at <= now() AS past, after, waiting_for FROM seen WHERE task_id IN ('c', 'e', 'f');
SELECT task_id, status, started_at FROM taskshed.runs WHERE callback ~ 'after';
ROLLBACK;
-- From one that recurs to one that does not, and back
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => 'daily');
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{daily}');
SELECT * FROM seen WHERE task_id = 'c';
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{daily,a}');
SELECT * FROM seen WHERE task_id = 'c';
SELECT taskshed.add_task('nothing', '2100-01-01', every => '2 days', task_id => 'c');
SELECT * FROM seen WHERE task_id = 'c';
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{daily}');
SELECT * FROM seen WHERE task_id = 'c';
-- A call that changes nothing writes nothing.
SELECT a AS before FROM _taskshed.alarm a JOIN _taskshed.task USING (id) WHERE task_id = 'c' \gset
SELECT array_agg((e, e.ctid)::text) AS edges FROM _taskshed.edge e \gset
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{daily}');
SELECT a::text = :'before' AS same FROM _taskshed.alarm a JOIN _taskshed.task USING (id) WHERE task_id = 'c';
SELECT array_agg((e, e.ctid)::text) = :'edges' AS same FROM _taskshed.edge e;
SELECT taskshed.remove_all_tasks();

-- A task that has failed has ended.
SELECT add('a', 'b');
CALL fail('a');
BEGIN;
SELECT taskshed.add_task('nothing', task_id => 'succeeded', after => '{a}');
SELECT taskshed.add_task('nothing', task_id => 'ended', after => '{a}', after_status => 'ended');
SELECT taskshed.add_task('nothing', task_id => 'failed', after => '{a,b}', after_status => 'failed');
SELECT task_id, state, after, waiting_for FROM seen;
SELECT * FROM progress;
SELECT task_id, status, sqlstate, message FROM _taskshed.edge WHERE done_at IS NOT NULL;
ROLLBACK;
SELECT taskshed.remove_all_tasks();

-- ------------------------------------------------------------------------
-- Removing

SET ROLE regress_alice;
-- What has needed it fails, and says so; retry_task has it run nevertheless.
SELECT add('a', 'b');
SELECT taskshed.add_tasks('[
	{"callback": "nothing", "task_id": "c", "after": ["a"]},
	{"callback": "nothing", "task_id": "d", "after": ["c"]},
	{"callback": "nothing", "task_id": "e", "after": ["a", "b"], "after_status": "ended"},
	{"callback": "nothing", "task_id": "f", "after": ["b", "a"], "after_status": "failed"},
	{"callback": "nothing", "task_id": "g", "after": ["c"], "after_status": "ended", "paused": true},
	{"callback": "nothing", "task_id": "h", "after": ["a", "b"]}]');
CALL mark('h', 'a');
SELECT taskshed.remove_task('a');
SELECT task_id, state, last_status, last_sqlstate, last_error, after, waiting_for, run_at < now() AS past FROM taskshed.tasks ORDER BY task_id;
SELECT task_id, status, sqlstate, message, hint FROM taskshed.runs WHERE callback ~ 'after' ORDER BY task_id;
BEGIN;
SELECT taskshed.retry_task('c');
SELECT task_id, state, after, waiting_for FROM seen WHERE task_id = 'c';
ROLLBACK;
-- Replaced, it waits for what it is told to.
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{b}');
SELECT task_id, state, last_status, after, waiting_for FROM taskshed.tasks WHERE task_id = 'c';
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'e', after => '{a}')$$);
SELECT taskshed.remove_all_tasks();

-- Those that go together do not tell each other, whatever the order; those that stay are told of it.
SELECT add('a', 'b');
SELECT taskshed.add_tasks('[
	{"callback": "nothing", "task_id": "0c", "after": ["a"], "group_id": "g"},
	{"callback": "nothing", "task_id": "d", "after": ["0c", "b"], "group_id": "g"},
	{"callback": "nothing", "task_id": "e", "after": ["d"]}]');
SELECT taskshed.remove_tasks('{b,a,0c,d}');
SELECT task_id, state, last_error FROM taskshed.tasks;
SELECT count(*) FROM taskshed.runs WHERE task_id IN ('0c', 'd') AND message ~ 'removed';
SELECT left_over();
SELECT taskshed.remove_all_tasks();
SELECT add('a');
SELECT taskshed.add_tasks('[
	{"callback": "nothing", "task_id": "0c", "after": ["a"], "group_id": "g"},
	{"callback": "nothing", "task_id": "d", "after": ["0c"], "group_id": "g"},
	{"callback": "nothing", "task_id": "e", "after": ["a", "0c"]}]');
SELECT taskshed.remove_tasks(group_id => 'g');
SELECT task_id, state, last_error FROM taskshed.tasks ORDER BY task_id;
SELECT taskshed.remove_all_tasks();
SELECT left_over();
SELECT add('a');
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{a}', on_failure => 'nothing');
SELECT taskshed.remove_all_tasks();
SELECT task_id FROM seen;
-- A hook is told of one that is left.
SELECT add('a');
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{a}', on_failure => 'nothing');
BEGIN;
SELECT taskshed.remove_task('a');
SELECT task_id, state, kwargs->>'status' AS status, kwargs->>'sqlstate' AS sqlstate, kwargs->>'message' AS message FROM taskshed.tasks ORDER BY task_id;
ROLLBACK;
-- One that is removed since its times are over is removed, too.
SELECT taskshed.add_task('nothing', '2100-01-01', until => '2000-01-01', task_id => 'a');
SELECT task_id, state, last_error FROM taskshed.tasks WHERE task_id = 'c';
SELECT taskshed.remove_all_tasks() > 0 AS removed;
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => 'daily');
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{daily}');
SELECT taskshed.update_tasks('{"until": "2000-01-01"}', '{daily}');
SELECT task_id, state, last_error FROM taskshed.tasks;
SELECT taskshed.remove_all_tasks();
-- In a call, one whose times are over is none to wait for.
BEGIN;
SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "c", "after": ["over"]}, {"callback": "nothing", "task_id": "over", "run_at": "2100-01-01", "until": "2000-01-01"}]');
SELECT task_id, state, after FROM seen;
ROLLBACK;

RESET ROLE;

-- ------------------------------------------------------------------------
-- Other changes

SELECT add('a');
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => 'daily');
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{a}');
SELECT taskshed.add_task('nothing', task_id => 'l', after => '{daily}');
-- A pause hides that it waits, and ends again.
SELECT taskshed.pause_tasks('{c,l}');
SELECT * FROM seen;
SELECT taskshed.resume_tasks('{c,l}');
SELECT task_id, state, run_at FROM seen;
-- What is changed in it leaves it waiting.
SELECT taskshed.update_tasks('{"group_id": "g", "max_attempts": 3, "timeout": "1 min", "kwargs": {}}', '{c,l}');
SELECT taskshed.update_tasks('{"paused": true}', '{c}');
SELECT taskshed.update_tasks('{"paused": false, "description": "last"}', '{c}');
SELECT taskshed.update_tasks('{"max_runs": 3, "until": "2100-12-31"}', '{l}');
SELECT task_id, group_id, run_type, state, run_at, max_attempts, max_runs, after, waiting_for FROM taskshed.tasks ORDER BY task_id;
CALL fails($$SELECT taskshed.update_tasks('{"after": ["daily"]}', '{c}')$$);
CALL fails($$SELECT taskshed.update_tasks('{"after_group": "g"}', '{c}')$$);
CALL fails($$SELECT taskshed.update_tasks('{"after_status": "ended"}', '{c}')$$);
CALL fails($$SELECT taskshed.update_tasks('{"before": ["c"]}', '{a}')$$);
CALL fails($$SELECT taskshed.update_tasks('{"every": "1 day"}', '{c}')$$);
CALL fails($$SELECT taskshed.update_tasks('{"schedule": "0 3 * * *"}', '{l}')$$);
CALL fails($$SELECT taskshed.update_tasks('{"run_type": "recurring"}', '{c}')$$);
CALL fails($$SELECT taskshed.update_tasks('{"run_type": "recurring"}', '{a}')$$);
BEGIN;
SELECT taskshed.update_tasks('{"run_type": "once"}', '{l}');
SELECT task_id, run_type, state, after, waiting_for FROM seen WHERE task_id = 'l';
ROLLBACK;
-- A time is one that it has, too.
SELECT taskshed.update_execution_time('c', '2100-02-01');
SELECT taskshed.update_tasks('{"run_at": "2100-02-01"}', '{l}');
SELECT task_id, state, run_at, waiting_for FROM seen WHERE task_id IN ('c', 'l');
SELECT taskshed.update_execution_times(array[('l', '2100-03-01')::taskshed.task_execution_time]);
SELECT task_id, state, run_at, waiting_for FROM seen WHERE task_id IN ('c', 'l');
SELECT taskshed.next_runs(task_id => 'l');
SELECT taskshed.retry_tasks('{c,l}'), taskshed.cancel_tasks('{c,l}');
-- It can be had to run at once, and waits again then.
BEGIN;
SELECT taskshed.run_tasks('{c,l}');
SELECT task_id, state, run_at, waiting_for FROM seen WHERE task_id IN ('c', 'l');
ROLLBACK;
SELECT taskshed.remove_all_tasks();

-- ------------------------------------------------------------------------
-- Whose they are

SET ROLE regress_alice;
SELECT add('a', 'b');
SELECT taskshed.add_task('nothing', task_id => 'c', after => '{a}', after_status => 'ended');
RESET ROLE;
SET ROLE regress_bob;
SELECT count(*) FROM taskshed.tasks;
SELECT count(*) FROM taskshed.followers;
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{a}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'x', after => '{a}', owner => 'regress_alice')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', before => '{c}')$$);
CALL fails($$SELECT * FROM _taskshed.edge$$);
RESET ROLE;
GRANT pg_read_all_stats TO regress_bob;
SET ROLE regress_bob;
SELECT * FROM taskshed.followers;
SELECT task_id, state, after, waiting_for FROM taskshed.tasks ORDER BY task_id;
RESET ROLE;
REVOKE pg_read_all_stats FROM regress_bob;

-- None of two that are joined goes to another role while the other stays.
SET ROLE regress_both;
CALL fails($$SELECT taskshed.set_owner('regress_bob', '{c}', owner => 'regress_alice')$$);
CALL fails($$SELECT taskshed.set_owner('regress_bob', '{a}', owner => 'regress_alice')$$);
CALL fails($$SELECT taskshed.set_owner('regress_bob', '{b,c}', owner => 'regress_alice')$$);
SELECT owner, task_id FROM taskshed.tasks ORDER BY 1, 2;
SELECT taskshed.set_owner('regress_bob', '{b}', owner => 'regress_alice');
SELECT taskshed.set_owner('regress_bob', '{c,a}', owner => 'regress_alice');
SELECT owner, task_id, state, after FROM taskshed.tasks ORDER BY 1, 2;
SELECT taskshed.set_owner('regress_alice', owner => 'regress_bob');
SELECT owner, task_id, state, after FROM taskshed.tasks ORDER BY 1, 2;
SELECT owner, task_id, parents FROM taskshed.followers;
-- One that is gone holds nothing back.
SELECT taskshed.remove_task('a', owner => 'regress_alice');
SELECT taskshed.set_owner('regress_bob', '{c}', owner => 'regress_alice');
SELECT owner, task_id, state, after FROM taskshed.tasks ORDER BY 1, 2;
RESET ROLE;
DROP OWNED BY regress_alice, regress_bob;
SELECT count(*) FROM taskshed.tasks;
SELECT left_over();

-- REASSIGN OWNED takes all along; DROP OWNED leaves nothing.
GRANT USAGE ON SCHEMA taskshed, after TO regress_alice, regress_bob, regress_both;
SET ROLE regress_alice;
SELECT add('a', 'b');
SELECT taskshed.add_task('nothing', task_id => '0c', after => '{a,b}');
SELECT taskshed.add_task('nothing', task_id => 'd', after => '{0c}');
RESET ROLE;
REASSIGN OWNED BY regress_alice TO regress_bob;
SELECT owner, task_id, state, after, waiting_for FROM taskshed.tasks ORDER BY 1, 2;
DROP OWNED BY regress_bob;
SELECT count(*) FROM taskshed.tasks;
SELECT left_over();
SELECT count(*) FROM taskshed.runs WHERE message ~ 'removed' AND task_id IN ('0c', 'd') AND owner IN ('regress_alice', 'regress_bob');

-- The table of what runs after what is dumped, too.
SELECT extcondition[i] FROM pg_extension, unnest(extconfig) WITH ORDINALITY AS c (oid, i) WHERE extname = 'taskshed' AND c.oid = '_taskshed.edge'::regclass;

DROP SCHEMA after CASCADE;
DROP OWNED BY regress_alice, regress_bob, regress_both;
DROP ROLE regress_alice, regress_bob, regress_both;
