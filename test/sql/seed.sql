-- The page "Schedulers" of the original, TaskShed for Python, example by example: each of its
-- calls, in the page's order, as a call of ours, and what it leaves behind.
--
-- All of it is one transaction, which removes its tasks before it commits.  So nothing runs, however
-- slow the machine, and now() is the same time throughout.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
SET client_min_messages = warning;
CREATE SCHEMA seed;
SET search_path = seed;

-- "async def add(a, b)": the callback.  There is no callback map, its name is enough.
CREATE FUNCTION add(a integer, b integer) RETURNS integer
LANGUAGE sql AS 'SELECT a + b';

BEGIN;

-- One-off Task
SELECT taskshed.add_task(
	callback => 'add',
	run_at => now() + interval '5 seconds',
	kwargs => '{"a": 1, "b": 2}'
) AS one_off \gset
SELECT callback, run_at - now() AS run_in, kwargs, run_type, every
FROM taskshed.fetch_task(:'one_off');

-- Recurring Tasks: "interval" is "every" here, a word that SQL allows as a parameter's name.
SELECT taskshed.add_task(
	callback => 'add',
	run_at => now() + interval '5 seconds',
	kwargs => '{"a": 1, "b": 2}',
	run_type => 'recurring',
	every => interval '10 seconds'
) AS recurring \gset
SELECT callback, run_at - now() AS run_in, kwargs, run_type, every
FROM taskshed.fetch_task(:'recurring');

-- "If left blank an ID will be generated."
SELECT :'one_off' ~ '^[0-9a-f]{32}$' AS one_off, :'recurring' ~ '^[0-9a-f]{32}$' AS recurring,
	:'one_off' <> :'recurring' AS different;

-- Scheduling Many Tasks
SELECT taskshed.add_tasks((
	SELECT jsonb_agg(jsonb_build_object(
		'callback', 'add',
		'run_at', now() + i * interval '10 seconds',
		'kwargs', jsonb_build_object('a', 1, 'b', 2),
		'task_id', 'task-' || i,
		'group_id', 'adding_numbers') ORDER BY i)
	FROM generate_series(0, 4) i));

-- Timezones: 10 AM in New York is 2 PM UTC on that day, whatever the session's own zone is.
SELECT taskshed.add_task(
	callback => 'add',
	run_at => '2025-03-14 10:00 America/New_York',
	kwargs => '{"a": 1, "b": 2}'
) AS new_york \gset
SELECT run_at FROM taskshed.fetch_task(:'new_york');
SELECT run_at AT TIME ZONE 'America/New_York' AS in_new_york FROM taskshed.fetch_task(:'new_york');

-- Fetching Tasks
SELECT task_id, group_id, callback, kwargs, run_at - now() AS run_in
FROM taskshed.fetch_tasks(group_id => 'adding_numbers');

-- Pausing and Resuming Tasks
SELECT taskshed.pause_tasks(task_ids => ARRAY['task-1', 'task-2']);
SELECT task_id, state = 'paused' AS paused, paused_at IS NOT NULL AS has_paused_at, run_at - now() AS run_in
FROM taskshed.fetch_tasks(group_id => 'adding_numbers');
SELECT taskshed.resume_tasks(task_ids => ARRAY['task-1', 'task-2']);
SELECT task_id, state = 'paused' AS paused, paused_at IS NOT NULL AS has_paused_at, run_at - now() AS run_in
FROM taskshed.fetch_tasks(group_id => 'adding_numbers');

-- "The same": each takes task_ids or a group_id.
SELECT taskshed.pause_tasks(group_id => 'adding_numbers');
SELECT taskshed.resume_tasks(group_id => 'adding_numbers');
SELECT task_id FROM taskshed.fetch_tasks(task_ids => ARRAY['task-3', 'task-1']);

-- Updating a Task's Execution Time
SELECT taskshed.update_execution_times(
	tasks => ARRAY[
		('task-1', now() + interval '20 seconds'),
		('task-2', now() + interval '30 seconds')
	]::taskshed.task_execution_time[]
);
SELECT task_id, run_at - now() AS run_in
FROM taskshed.fetch_tasks(group_id => 'adding_numbers');

-- Deleting, which the page promises in a heading
SELECT taskshed.remove_tasks(task_ids => ARRAY['task-1', 'task-2']);
SELECT taskshed.remove_tasks(group_id => 'adding_numbers');
SELECT taskshed.remove_tasks(task_ids => ARRAY[:'one_off', :'recurring', :'new_york']);
SELECT count(*) FROM taskshed.tasks;

COMMIT;

DROP SCHEMA seed CASCADE;
