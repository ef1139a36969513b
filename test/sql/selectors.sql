-- Finding, pausing, resuming, removing and re-timing tasks: by task_ids, by group_id, one by one and as
-- set work in SQL.
--
-- All tasks are far ahead: none of them runs.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
\pset null '(null)'

CREATE SCHEMA selectors;
SET search_path = selectors;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION report(day integer) RETURNS void LANGUAGE sql AS '';

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

-- Six tasks, three of them in each of two groups; run_at is not in the order of the ids.
CREATE PROCEDURE six_tasks() LANGUAGE sql AS $$
	SELECT taskshed.remove_all_tasks();
	SELECT taskshed.add_task('selectors.nothing', '2100-01-10'::timestamptz - n * interval '1 day', task_id => 'task ' || n,
		group_id => CASE WHEN n % 2 = 1 THEN 'odd' ELSE 'even' END)
	FROM generate_series(1, 6) n;
$$;
CALL six_tasks();
SELECT task_id, group_id, run_at FROM taskshed.tasks ORDER BY task_id;

-- fetch_tasks: all, by ids, by group; always by run_at, then task_id
SELECT task_id FROM taskshed.fetch_tasks();
SELECT task_id FROM taskshed.fetch_tasks(NULL, NULL, NULL);
SELECT task_id FROM taskshed.fetch_tasks(owner => current_user);
SELECT task_id FROM taskshed.fetch_tasks(ARRAY['task 1', 'task 5', 'task 3']);
SELECT task_id FROM taskshed.fetch_tasks(ARRAY['task 2', NULL, 'task 2', 'missing']);
SELECT task_id FROM taskshed.fetch_tasks('{}');
SELECT task_id FROM taskshed.fetch_tasks(ARRAY[NULL::text]);
SELECT task_id FROM taskshed.fetch_tasks(group_id => 'odd');
SELECT task_id FROM taskshed.fetch_tasks(group_id => 'missing');
SELECT task_id FROM taskshed.fetch_tasks(ARRAY[['task 1', 'task 2'], ['task 3', 'task 4']]);
SELECT (SELECT count(*) FROM taskshed.fetch_tasks(ARRAY(SELECT 'task ' || n FROM generate_series(1, 10000) n)));
CALL fails($$SELECT taskshed.fetch_tasks(ARRAY['task 1'], 'odd')$$);
CALL fails($$SELECT taskshed.fetch_tasks('{}', 'odd')$$);
SELECT taskshed.update_execution_times(array_agg((task_id, '2100-01-01')::taskshed.task_execution_time)) FROM taskshed.tasks;
SELECT array_agg(task_id) FROM (SELECT task_id FROM taskshed.fetch_tasks()) t;

-- in the places where a set can be
SELECT (taskshed.fetch_tasks(group_id => 'odd')).task_id;
SELECT ordinality, task_id FROM unnest('{odd,even}'::text[]) g, LATERAL taskshed.fetch_tasks(group_id => g) WITH ORDINALITY
WHERE ordinality < 3;

-- fetch_task: NULL when there is none
SELECT task_id, group_id FROM taskshed.fetch_task('task 1');
SELECT taskshed.fetch_task('missing') IS NULL;
SELECT taskshed.fetch_task(NULL) IS NULL;
SELECT taskshed.fetch_task('') IS NULL;
-- rows of the view's own type
SELECT t = taskshed.fetch_task('task 1') AS same FROM taskshed.tasks t WHERE task_id = 'task 1';
SELECT count(*) FROM (TABLE taskshed.tasks EXCEPT SELECT * FROM taskshed.fetch_tasks()) t;
-- also when that is another one than at the last call, as after an update of the extension
BEGIN;
DO $$ BEGIN
	EXECUTE 'CREATE OR REPLACE VIEW taskshed.tasks AS ' ||
		regexp_replace(pg_get_viewdef('taskshed.tasks'::regclass), 'FROM', ', id FROM');
END $$;
SELECT t.id = i.id AS id, t = taskshed.fetch_task('task 1') AS same
FROM taskshed.fetch_tasks('{task 1}') t JOIN _taskshed.task i USING (task_id);
ROLLBACK;
SELECT t = taskshed.fetch_task('task 1') AS same FROM taskshed.tasks t WHERE task_id = 'task 1';

-- Pausing counts those that were not paused; the first paused_at stays.
CALL six_tasks();
SELECT taskshed.pause_tasks(ARRAY['task 1', NULL, 'task 2', 'missing', 'task 1']);
SELECT paused_at AS first_paused_at FROM taskshed.fetch_task('task 1') \gset
SELECT taskshed.pause_tasks(ARRAY['task 1', 'task 3']);
SELECT taskshed.pause_task('task 1');
SELECT paused_at = :'first_paused_at' AS since_then FROM taskshed.fetch_task('task 1');
SELECT taskshed.pause_tasks(group_id => 'odd');
SELECT taskshed.pause_tasks(group_id => 'odd');
SELECT taskshed.pause_tasks(group_id => 'missing');
SELECT taskshed.pause_tasks('{}');
SELECT taskshed.pause_tasks(ARRAY[NULL]::text[]);
SELECT taskshed.pause_task('missing');
SELECT taskshed.pause_task(NULL);
SELECT task_id, state, paused_at IS NOT NULL AS has_paused_at, run_at FROM taskshed.tasks ORDER BY task_id;

-- Resuming leaves run_at alone.
SELECT taskshed.resume_tasks(ARRAY['task 1', 'task 6', NULL, 'missing']);
SELECT taskshed.resume_tasks(group_id => 'odd');
SELECT taskshed.resume_tasks(group_id => 'odd');
SELECT taskshed.resume_tasks('{}');
SELECT taskshed.resume_task('task 2');
SELECT taskshed.resume_task('task 2');
SELECT taskshed.resume_task('missing');
SELECT taskshed.resume_task(NULL);
SELECT task_id, state, paused_at, run_at FROM taskshed.tasks ORDER BY task_id;

-- Removing
SELECT taskshed.remove_tasks(ARRAY['task 1', NULL, 'missing', 'task 1', 'task 2']);
SELECT taskshed.remove_tasks('{}');
SELECT taskshed.remove_task('task 3');
SELECT taskshed.remove_task('task 3');
SELECT taskshed.remove_task(NULL);
SELECT taskshed.remove_tasks(group_id => 'even');
SELECT taskshed.remove_tasks(group_id => 'even');
SELECT task_id FROM taskshed.tasks ORDER BY task_id;
SELECT taskshed.remove_all_tasks();
SELECT taskshed.remove_all_tasks();
SELECT count(*) FROM taskshed.tasks;

-- Neither or both
CALL fails($$SELECT taskshed.pause_tasks()$$);
CALL fails($$SELECT taskshed.pause_tasks(NULL, NULL)$$);
CALL fails($$SELECT taskshed.pause_tasks(owner => current_user)$$);
CALL fails($$SELECT taskshed.pause_tasks('{}', 'odd')$$);
CALL fails($$SELECT taskshed.resume_tasks()$$);
CALL fails($$SELECT taskshed.resume_tasks('{}', 'odd')$$);
CALL fails($$SELECT taskshed.remove_tasks()$$);
CALL fails($$SELECT taskshed.remove_tasks('{}', 'odd')$$);
CALL fails($$SELECT taskshed.remove_tasks(ARRAY['task 1'], owner => 'no such role')$$);

-- One by one, as set work
CALL six_tasks();
SELECT taskshed.pause_task(task_id) FROM taskshed.tasks WHERE group_id = 'odd';
SELECT task_id, state FROM taskshed.tasks ORDER BY task_id;
SELECT count(*) FILTER (WHERE taskshed.resume_task(task_id)) AS resumed, count(*) FROM taskshed.tasks;
SELECT count(taskshed.update_execution_time(task_id, run_at + interval '1 month')) FROM taskshed.tasks WHERE group_id = 'even';
SELECT task_id, state, run_at FROM taskshed.tasks ORDER BY task_id;
SELECT bool_and(taskshed.remove_task(task_id)) FROM taskshed.tasks WHERE run_at >= '2100-02-01';
SELECT task_id FROM taskshed.tasks ORDER BY task_id;

-- Re-timing: the pairs that exist are moved, paused or not.
CALL six_tasks();
SELECT taskshed.pause_task('task 2');
SELECT taskshed.update_execution_times(ARRAY[('task 1', '2100-05-01 12:00+02'), ('task 2', '2100-05-02'), ('missing', '2100-05-03'),
	NULL, (NULL, '2100-05-04')]::taskshed.task_execution_time[]);
SELECT task_id, run_at, state FROM taskshed.fetch_tasks(ARRAY['task 1', 'task 2']);
SELECT taskshed.update_execution_times('{}');
SELECT taskshed.update_execution_times('{"(task 1,2100-05-05)"}');
SELECT taskshed.update_execution_time('task 2', '2100-05-06');
SELECT taskshed.update_execution_time('missing', '2100-05-06');
SELECT taskshed.update_execution_time(NULL, '2100-05-06');
SELECT task_id, run_at, state FROM taskshed.fetch_tasks(ARRAY['task 1', 'task 2']);
-- from two arrays, as a driver has them
SELECT taskshed.update_execution_times(array_agg((t, r)::taskshed.task_execution_time))
FROM unnest('{task 1,task 2}'::text[], '{2100-06-01,2100-06-02}'::timestamptz[]) u(t, r);
SELECT t, taskshed.update_execution_time(t, r)
FROM unnest('{task 3,missing}'::text[], '{2100-06-03,2100-06-02}'::timestamptz[]) u(t, r);
SELECT task_id, run_at FROM taskshed.fetch_tasks(ARRAY['task 1', 'task 2', 'task 3']);
-- all or none
CALL fails($$SELECT taskshed.update_execution_times(ARRAY[('task 1', '2100-07-01'), ('task 2', 'infinity')]::taskshed.task_execution_time[])$$);
CALL fails($$SELECT taskshed.update_execution_times(ARRAY[('task 1', '2100-07-01'), ('task 2', NULL)]::taskshed.task_execution_time[])$$);
CALL fails($$SELECT taskshed.update_execution_times(ARRAY[('task 1', '2100-07-01'), ('task 1', '2100-07-02')]::taskshed.task_execution_time[])$$);
CALL fails($$SELECT taskshed.update_execution_times(NULL)$$);
CALL fails($$SELECT taskshed.update_execution_time('task 1', NULL)$$);
CALL fails($$SELECT taskshed.update_execution_time('task 1', '-infinity')$$);
SELECT task_id, run_at FROM taskshed.fetch_tasks(ARRAY['task 1', 'task 2']);
-- A task that has failed is scheduled again.  (The update stands for a run that failed.)
UPDATE _taskshed.alarm SET failed_at = now();
SELECT state, count(*) FROM taskshed.tasks GROUP BY state;
SELECT failed FROM taskshed.status WHERE database = current_database();
SELECT taskshed.update_execution_time('task 1', '2100-08-01');
SELECT taskshed.update_execution_times(ARRAY[('task 2', '2100-08-02')]::taskshed.task_execution_time[]);
SELECT task_id, state FROM taskshed.tasks ORDER BY task_id;
-- Pausing and resuming leaves it failed.
SELECT taskshed.pause_task('task 3'), taskshed.resume_task('task 3');
SELECT state FROM taskshed.fetch_task('task 3');

-- next_wakeup: the earliest that is not paused or failed
CALL six_tasks();
SELECT taskshed.next_wakeup();
SELECT taskshed.pause_task('task 6');
SELECT taskshed.next_wakeup();
UPDATE _taskshed.alarm SET failed_at = now() WHERE run_at = '2100-01-05';
SELECT taskshed.next_wakeup();
SELECT taskshed.update_execution_time('task 1', '2100-01-01');
SELECT taskshed.next_wakeup();
BEGIN;
SELECT taskshed.add_task('nothing') IS NOT NULL AS added;
SELECT taskshed.next_wakeup() BETWEEN now() AND clock_timestamp() AS just_added;
ROLLBACK;
SELECT taskshed.next_wakeup();
SELECT taskshed.pause_tasks(group_id => 'odd'), taskshed.pause_tasks(group_id => 'even');
SELECT taskshed.next_wakeup();
SELECT taskshed.remove_all_tasks();
SELECT taskshed.next_wakeup();

-- A cursor and a loop over tasks that the loop removes
CALL six_tasks();
DO $$
DECLARE
	task taskshed.tasks;
BEGIN
	FOR task IN SELECT * FROM taskshed.tasks LOOP
		PERFORM taskshed.remove_task(task.task_id);
	END LOOP;
END $$;
SELECT count(*) FROM taskshed.tasks;

-- Nothing runs, nothing has failed, nothing is there.
SELECT taskshed.cancel_tasks(ARRAY['x']), taskshed.retry_tasks(ARRAY['x']), taskshed.run_tasks(ARRAY['x']),
	taskshed.cancel_task('x'), taskshed.retry_task('x');
CALL fails($$SELECT taskshed.cancel_tasks()$$);
CALL fails($$SELECT taskshed.retry_tasks(ARRAY['x'], 'y')$$);
CALL fails($$SELECT taskshed.run_tasks(NULL)$$);

-- Without pg_cron.
CALL fails($$SELECT taskshed.import_pg_cron()$$);
CALL fails($$SELECT taskshed.export_pg_cron()$$);
SELECT * FROM taskshed.runs WHERE false;
-- and what is only there within a run is NULL elsewhere.
SELECT * FROM taskshed.current_task();

SET client_min_messages = warning;
DROP SCHEMA selectors CASCADE;
