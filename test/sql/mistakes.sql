-- Mistakes that are easily made, and what is said: each kind must not be taken for something else, and must
-- name the way out.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
\pset null '(null)'

CREATE SCHEMA mistakes;
SET search_path = mistakes;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE PROCEDURE fails(command text) LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	hint text;
BEGIN
	EXECUTE command;
	RAISE NOTICE 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RAISE NOTICE '% %', state, message || coalesce(E'\nHINT:  ' || nullif(hint, ''), '');
END $$;

-- A cron expression for every: the server's input of intervals would take some of them.
CREATE FUNCTION as_every(every text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	hint text;
BEGIN
	PERFORM taskshed.add_tasks(jsonb_build_array(jsonb_build_object('callback', 'mistakes.nothing', 'run_at', '2100-01-01',
		'task_id', 'x', 'every', every)));
	RETURN (SELECT t.every FROM taskshed.fetch_task('x') t);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN SQLSTATE || ' ' || message || coalesce(' -- ' || nullif(hint, ''), '');
END $$;
SELECT e AS "as every", as_every(e) FROM unnest(ARRAY['*/5 * * * *', '0 9 * * *', '* * * * *', '0 0 1 1 1', '0 30 4 1 1 5', '5/10 * * * *',
	'30 4 1 jan mon', '*/30', '0 0 ? * 1#2', '0 0 $ * *', '@daily', '@hourly', '@every 5m']) WITH ORDINALITY AS u (e, i) ORDER BY i;
-- Intervals as they are written
SELECT e AS "as every", as_every(e), as_every(e)::interval = e::interval AS same FROM unnest(ARRAY['1 day 02:00', 'P1D', 'PT5M', '1-2 3 4:05:06', '@ 1 minute', '1 day, 2 hours', '30 seconds',
	'1 mon -1 day', '+1 day', '1.5 hours', '00:00:30.5', '1h30m', '300', 'P0001-02-03T04:05:06', '1 year 2 mons 3 days 4 hours 5 mins 6 secs', '@ 1 day 2 hours', '1 week'])
	WITH ORDINALITY AS u (e, i) ORDER BY i;
SELECT as_every('5 min ago');
SELECT taskshed.add_tasks('[{"callback": "nothing", "run_at": "2100-01-01", "every": null, "task_id": "x"},
	{"callback": "nothing", "run_at": "2100-01-01", "every": 300, "task_id": "y", "kwargs": {}}]');
SELECT task_id, every FROM taskshed.fetch_tasks();
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing"}, {"callback": "nothing", "every": "*/5 * * * *"}]')$$);
-- An array or an object, which the server's input would take for what is in it
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "every": ["*/5 * * * *"]}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "every": {"minutes": 5}}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "timeout": {"minutes": 5}}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "run_at": ["2100-01-01"]}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "every": []}]')$$);
SELECT taskshed.remove_all_tasks();

-- A number in another unit, such as Go's nanoseconds: five minutes, and an hour
CALL fails($$SELECT taskshed.add_task('nothing', every => '300000000000')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "every": 3600000000000}]')$$);
CALL fails($$SELECT taskshed.next_runs(every => '300000000000')$$);
CALL fails($$SELECT taskshed.add_task('nothing', every => '1000 years 1 day')$$);
CALL fails($$SELECT taskshed.add_task('nothing', timeout => '60000000000')$$);
CALL fails($$SELECT taskshed.add_task('nothing', retry_delay => '60000000000')$$);
CALL fails($$SELECT taskshed.add_task('nothing', retry_max_delay => '60000000000')$$);
CALL fails($$SELECT taskshed.add_task('nothing', start_within => '60000000000')$$);
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1000 years', timeout => '1000 years', task_id => 'x');
SELECT * FROM taskshed.next_runs(task_id => 'x', n => 2);
SELECT taskshed.remove_all_tasks();

-- Tasks that run after others
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'first'), taskshed.add_task('nothing', task_id => 'then', after => '{first}'),
	taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => 'daily'), taskshed.add_task('nothing', task_id => 'each', after => '{daily}');
CALL fails($$SELECT taskshed.add_task('nothing', after => '{frist}')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing"}, {"callback": "nothing", "before": ["frist"]}]')$$);
CALL fails($$SELECT taskshed.add_task('nothing', after => '{first,NULL}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', before => '{NULL}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', after => '{first,first}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', after => '{first}', after_status => 'success')$$);
CALL fails($$SELECT taskshed.add_task('nothing', after_status => 'ended')$$);
CALL fails($$SELECT taskshed.add_task('nothing', after => '{first}', every => '1 hour')$$);
CALL fails($$SELECT taskshed.add_task('nothing', after_group => 'g', schedule => '@daily')$$);
CALL fails($$SELECT taskshed.add_task('nothing', after => '{first,daily}', run_type => 'recurring', task_id => 'both')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'first', after => '{first}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'first', after => '{then}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', task_id => 'a', after => '{then}', before => '{then}')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "a", "after": ["b"]}, {"callback": "nothing", "task_id": "b", "after": ["a"]}]')$$);
CALL fails($$SELECT taskshed.add_task('nothing', before => '{first}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', before => '{each}')$$);
CALL fails($$SELECT taskshed.update_tasks('{"after": ["daily"]}', '{then}')$$);
CALL fails($$SELECT taskshed.update_tasks('{"every": "1 hour"}', '{then}')$$);
CALL fails($$SELECT taskshed.update_tasks('{"schedule": "@daily"}', '{each}')$$);
CALL fails($$SELECT taskshed.update_tasks('{"run_type": "recurring"}', '{then}')$$);
-- (not one: without times it waits, here for nothing yet)
SELECT taskshed.add_task('nothing', run_type => 'recurring', task_id => 'waits');
SELECT task_id, state, run_type, run_at, after, waiting_for FROM taskshed.tasks ORDER BY task_id;
SELECT taskshed.remove_all_tasks();

-- What is to come, and keys that there are not
CALL fails($$SELECT taskshed.add_task('nothing', queue => 'mail')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing"}, {"callback": "nothing", "keep": "1 day"}]')$$);
SELECT taskshed.add_tasks('[{"callback": "nothing", "run_at": "2100-01-01", "task_id": "x", "after": null, "priority": null, "options": {}}]');
CALL fails($$SELECT taskshed.update_tasks('{"priority": 5}', array['x'])$$);
SELECT taskshed.update_tasks('{"priority": null, "options": null}', array['x']);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "shedule": "@daily"}]')$$);
CALL fails($$SELECT taskshed.update_tasks('{"Time_Zone": "UTC"}', array['x'])$$);
CALL fails($$SELECT taskshed.update_tasks('{"args": {}}', array['x'])$$);
CALL fails($$SELECT taskshed.update_tasks('{"colour": "red"}', array['x'])$$);
CALL fails($$SELECT taskshed.add_task('nothing', options => '{"a": 1}')$$);
CALL fails($$SELECT taskshed.update_tasks('{"options": {"a": null}}', array['x'])$$);
CALL fails($$SELECT taskshed.add_task('nothing', options => '[]')$$);
CALL fails($$SELECT taskshed.add_task('nothing', options => '"a"')$$);
CALL fails($$SELECT taskshed.next_runs(every => '1 day', spread => '1 hour')$$);
CALL fails($$SELECT taskshed.next_runs('0 4 * * *', except_on => 'holidays')$$);
CALL fails($$SELECT taskshed.add_task('nothing', description => repeat(chr(252), 1001))$$);
SELECT length(description) FROM taskshed.fetch_task(taskshed.add_task('nothing', '2100-01-01', description => repeat(chr(252), 1000)));
SELECT taskshed.remove_all_tasks();

-- An interval for the schedule
CREATE FUNCTION as_schedule(schedule text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	hint text;
BEGIN
	RETURN taskshed.describe(schedule);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN SQLSTATE || ' ' || message || ' -- ' || regexp_replace(hint, '^(Give minute|It can hold).*', '\1');
END $$;
SELECT s AS "as schedule", as_schedule(s) FROM unnest(ARRAY['5 minutes', '@every 5m', '@every 1h30m', 'every 10 minutes', 'Every hour', '90 seconds', '1 day', 'PT5M', '00:05:00',
	'1 day 2 hours 3 minutes', '5min', '@ 1 minute', 'one''s 1 day',
	'5', '9 am', '9:00 am', '0 9 * *', '*/5', 'hourly', '@dayly', '@every', '@every often', '0 minutes', '5 min ago', '', '30 seconds']) WITH ORDINALITY AS u (s, i) ORDER BY i;
CALL fails($$SELECT taskshed.add_task('nothing', schedule => '5 minutes')$$);
CALL fails($$SELECT taskshed.next_runs('5 minutes')$$);
-- The name of a task, and a nickname without its @
CALL fails($$SELECT taskshed.next_runs('nightly')$$);
CALL fails($$SELECT taskshed.describe('it''s-nightly')$$);
CALL fails($$SELECT taskshed.add_task('nothing', schedule => 'nightly')$$);
CALL fails($$SELECT taskshed.next_runs('Daily')$$);
CALL fails($$SELECT taskshed.next_runs('*/5')$$);
CALL fails($$SELECT taskshed.next_runs('@nightly')$$);
CALL fails($$SELECT taskshed.next_runs('every night')$$);

-- Steps that select one value
SELECT s AS "a step", taskshed.describe(s) FROM unnest(ARRAY['0 */24 * * *', '0 20/5 * * *', '0 23/2 * * *', '5 */24 * * mon', '*/60 9 * * *', '30/40 9 * * *', '*/60 */24 * * *', '30 */60 */24 * * *',
	'*/60 * * * *', '30/40 * * * *', '*/60 * * * * *', '30/45 * * * * *', '*/60 0 9 * * *', '*/15 */24 * * *', '0/30 9 * * *', '0 22/1 * * *',
	'0 0 */31 * *', '0 0 20/15 * *', '0 0 1 */12 *', '0 0 1 12/3 *', '0 0 * * */7', '0 0 * * 6/3']) WITH ORDINALITY AS u (s, i) ORDER BY i;
-- The times are those that are described.
SELECT t, t2 = t AS same FROM taskshed.next_runs('0 20/5 * * *', after => '2100-01-01', n => 2) WITH ORDINALITY AS a (t, i)
	JOIN taskshed.next_runs('0 20 * * *', after => '2100-01-01', n => 2) WITH ORDINALITY AS b (t2, i) USING (i);

-- As the manual says: a month that has no day 31 has no weekday nearest to it, and a step is as large as its field at most.
SELECT t, to_char(t, 'dy') FROM taskshed.next_runs('0 0 31W * *', after => '2027-01-01', n => 5) t;
SELECT f AS field, n, left(as_schedule(overlay('* * * * * *' placing '*/' || n from 2 * i::integer - 1 for 1)), 40)
FROM unnest(ARRAY['second', 'minute', 'hour', 'day', 'month', 'weekday'], ARRAY[60, 60, 24, 31, 12, 7]) WITH ORDINALITY AS u (f, size, i),
	generate_series(size, size + 1) n ORDER BY i, n;

-- Calls that do not say what they are about
DO $$
DECLARE
	call text;
BEGIN
	FOREACH call IN ARRAY ARRAY['pause_tasks()', 'resume_tasks()', 'remove_tasks()', 'cancel_tasks()', 'retry_tasks()', 'run_tasks()', 'set_owner(''regress_other'')', 'set_owner(NULL)',
		'set_owner(''regress_other'', array[''a''], ''g'')', 'pause_tasks(array[''a''], ''g'')', 'add_callback(''x'')', 'add_callback(NULL)', 'update_execution_time(''x'')', 'next_runs()', 'describe(NULL)'] LOOP
		RAISE NOTICE '%', call;
		CALL mistakes.fails('SELECT taskshed.' || call);
	END LOOP;
END $$;

-- What the server says before anything of ours is called: docs/troubleshooting.md explains these messages. (Not their hints,
-- which differ between versions.)
DO $$
DECLARE
	call text;
BEGIN
	FOREACH call IN ARRAY ARRAY['add_task(''nothing'', ''0 3 * * *'')', 'add_task(''nothing'', ''1 hour'')', 'add_task(''nothing'', ''@daily'')', 'add_task(''nothing'', every => ''0 3 * * *'')',
		'add_task(''nothing'', kwargs => ''a'')', 'add_task(''nothing'', kwargs => ''{a: 1}'')', 'add_task(''nothing'', shedule => ''@daily'')', 'add_task(''nothing'', customer_id => 1)',
		'pause_tasks(''a'')', 'pause_tasks(array[1])', 'add_task(''nothing'', every => ''1 hour'', kwargs => ''{}'', ''@daily'')'] LOOP
		BEGIN
			EXECUTE 'SELECT taskshed.' || call;
			RAISE NOTICE '%: no error', call;
		EXCEPTION WHEN OTHERS THEN
			RAISE NOTICE '%: % %', call, SQLSTATE, SQLERRM;
		END;
	END LOOP;
	BEGIN
		EXECUTE 'SELECT add_task(''nothing'')';
	EXCEPTION WHEN OTHERS THEN
		RAISE NOTICE '% %', SQLSTATE, SQLERRM;
	END;
	-- Five seconds, as far as the server is asked
	EXECUTE 'SELECT taskshed.add_task(''nothing'', ''2100-01-01'', every => ''*/5 * * * *'', task_id => ''x'')';
END $$;
SELECT every FROM taskshed.fetch_task('x');
SELECT taskshed.remove_all_tasks();

-- What an aggregate makes of no rows is no tasks.
SELECT taskshed.update_execution_times(array_agg((t, r)::taskshed.task_execution_time))
	FROM unnest('{}'::text[], '{}'::timestamptz[]) AS u (t, r);
SELECT taskshed.update_execution_times('{}'), taskshed.update_execution_times(NULL), taskshed.add_tasks('[]'), taskshed.add_tasks(NULL);
SELECT taskshed.add_tasks(jsonb_agg(jsonb_build_object('callback', 'nothing'))) FROM generate_series(1, 0);
CALL fails($$SELECT taskshed.add_tasks('null')$$);

-- Who is to be told of a failure: it must be there, and take what it is told. Nothing is added otherwise.
CREATE FUNCTION mistakes.alert(task_id text, more integer) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION mistakes.alert_by_number(task_id integer) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION mistakes.alert_well(kwargs jsonb) RETURNS void LANGUAGE sql AS '';
DO $$
DECLARE
	call text;
BEGIN
	FOREACH call IN ARRAY ARRAY['add_task(''nothing'', on_failure => ''no_such'')', 'add_task(''nothing'', on_failure => ''mistakes.alert'')',
		'add_task(''nothing'', on_failure => ''mistakes.alert_by_number'')', 'add_task(''nothing'', on_failure => ''taskshed.execute'')', 'add_task(''nothing'', on_failure => ''a(b)'')',
		'add_task(''nothing'', notify => '''')', 'add_task(''nothing'', notify => repeat(''x'', 64))', 'add_task(''nothing'', task_id => ''on_failure/x'')',
		'add_tasks(''[{"callback": "nothing", "on_failure": "no_such"}]'')'] LOOP
		CALL mistakes.fails('SELECT taskshed.' || call);
	END LOOP;
END $$;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', on_failure => 'mistakes.alert_well', notify => repeat('x', 63));
CALL fails($$SELECT taskshed.update_tasks('{"on_failure": "no_such"}', array['x'])$$);
SELECT taskshed.update_tasks('{"notify": null, "on_failure": ""}', array['x']);
SELECT on_failure, notify FROM taskshed.fetch_task('x');
SELECT taskshed.remove_all_tasks();
SELECT taskshed.add_callback('a.b', 'nothing');
CALL fails($$SELECT taskshed.add_task('nothing', on_failure => 'a.b')$$);
SELECT taskshed.remove_callback('a.b');
CALL fails($$SET taskshed.notify_failures = 'a channel of a name that is longer than the name of anything else in PostgreSQL'$$);

-- What a task can have set for its runs, and what not
DO $$
DECLARE
	settings text;
BEGIN
	FOREACH settings IN ARRAY ARRAY['[]', '"work_mem"', '{"work_mem": []}', '{"work_mem": null}', '{"work_mem": "many"}', '{"no_such": 1}', '{"role": "postgres"}', '{"session_authorization": "postgres"}',
		'{"transaction_isolation": "serializable"}', '{"statement_timeout": "1s"}', '{"Application_Name": "x"}', '{"exit_on_error": true}', '{"taskshed.timeout": "1s"}', '{"shared_buffers": "1GB"}', '{"server_version": "1"}'] LOOP
		CALL mistakes.fails(format('SELECT taskshed.add_task(''nothing'', settings => %L)', settings));
	END LOOP;
END $$;
CREATE ROLE mistakes_role LOGIN;
CALL fails($$SELECT taskshed.add_task('nothing', owner => 'mistakes_role', settings => '{"log_min_messages": "debug1"}')$$);
DROP ROLE mistakes_role;

SET client_min_messages = warning;
DROP SCHEMA mistakes CASCADE;
