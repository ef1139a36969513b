-- add_tasks: many tasks in one call, all of them or none.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
\pset null '(null)'

CREATE SCHEMA add_tasks;
SET search_path = add_tasks;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION add(a integer, b integer) RETURNS integer LANGUAGE sql AS 'SELECT a + b';

-- What an error says: the context, too, as far as it is ours.
CREATE PROCEDURE fails(tasks jsonb, replace_existing boolean DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
	context text;
BEGIN
	PERFORM taskshed.add_tasks(tasks, replace_existing);
	RAISE NOTICE 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
	context := substring(context FROM '^.*of tasks$|^.*of tasks(?=\n)');
	RAISE NOTICE '% %', state, message || coalesce(E'\nDETAIL:  ' || nullif(detail, ''), '') ||
		coalesce(E'\nHINT:  ' || nullif(hint, ''), '') || coalesce(E'\nCONTEXT:  ' || context, '');
END $$;

-- The keys of an element are add_task's parameters; ids come back in the array's order.
SELECT taskshed.add_tasks('[
	{"callback": "nothing", "run_at": "2100-01-03", "task_id": "z"},
	{"callback": "add", "run_at": "2100-01-02 10:00 America/New_York", "task_id": "m", "kwargs": {"a": 1, "b": 2},
	 "run_type": "recurring", "every": "1 day 02:00", "group_id": "g", "paused": true, "catch_up": "skip",
	 "replace_existing": false, "timezone": "Europe/Berlin", "validate": true},
	{"callback": "nothing", "run_at": "2100-01-01T00:00:00Z", "task_id": "a", "group_id": "g"}
]');
SELECT task_id, group_id, callback, kwargs, run_type, run_at, every, timezone, catch_up, state FROM taskshed.fetch_tasks();

-- As in add_task, null means the default.
BEGIN;
SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "least"}, {"callback": "nothing", "task_id": "nulls",
	"run_at": null, "kwargs": null, "run_type": null, "every": null, "group_id": null, "paused": null, "catch_up": null,
	"replace_existing": null, "schedule": null, "timezone": null, "until": null, "max_runs": null, "start_within": null,
	"timeout": null, "max_attempts": null, "retry_delay": null, "retry_backoff": null, "retry_max_delay": null,
	"history": null, "owner": null, "validate": null}]', NULL);
SELECT count(*), count(DISTINCT to_jsonb(t) - '{task_id,run_at,created_at}'::text[]) AS different,
	bool_and(run_at BETWEEN now() AND clock_timestamp()) AS run_now
FROM taskshed.fetch_tasks(ARRAY['least', 'nulls']) t;
ROLLBACK;

-- Ids that are generated, between others
SELECT ids[1] ~ '^[0-9a-f]{32}$', ids[2], ids[3] ~ '^[0-9a-f]{32}$', ids[1] <> ids[3] AS different, ids[4], array_length(ids, 1),
	(SELECT array_agg((taskshed.fetch_task(id)).run_at ORDER BY n) FROM unnest(ids) WITH ORDINALITY u(id, n)) AS in_order
FROM taskshed.add_tasks('[
	{"callback": "nothing", "run_at": "2100-02-01"},
	{"callback": "nothing", "run_at": "2100-02-02", "task_id": "y"},
	{"callback": "nothing", "run_at": "2100-02-03"},
	{"callback": "nothing", "run_at": "2100-02-04", "task_id": "b"}]') ids;

-- No tasks
SELECT taskshed.add_tasks('[]');
SELECT count(*) FROM taskshed.tasks;

-- replace_existing is the default of the elements that don't say.
SELECT taskshed.add_tasks('[
	{"callback": "add", "kwargs": {"a": 1, "b": 2}, "run_at": "2100-03-01", "task_id": "a"},
	{"callback": "add", "kwargs": {"a": 1, "b": 2}, "run_at": "2100-03-01", "task_id": "z", "replace_existing": true},
	{"callback": "add", "kwargs": {"a": 1, "b": 2}, "run_at": "2100-03-01", "task_id": "new"}]',
	replace_existing => false);
SELECT task_id, callback, run_at FROM taskshed.tasks WHERE task_id IN ('a', 'z', 'new') ORDER BY task_id;
SELECT taskshed.add_tasks('[
	{"callback": "nothing", "run_at": "2100-04-01", "task_id": "a", "replace_existing": false},
	{"callback": "nothing", "run_at": "2100-04-01", "task_id": "z"}]');
SELECT task_id, callback, run_at FROM taskshed.tasks WHERE task_id IN ('a', 'z') ORDER BY task_id;
SELECT taskshed.remove_all_tasks();

-- All or none: each of these has elements that are fine.
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "no_such_function"}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "nothing", "interval": "1 hour"}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "nothing", "coalesce": true}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "nothing", "Task_id": "x"}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "nothing", "": null}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "nothing", "run_at": "sometime"}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "nothing", "run_at": "infinity"}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "nothing", "every": "often"}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "nothing", "every": "-1 day"}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "nothing", "paused": "perhaps"}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "nothing", "task_id": ""}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "nothing", "timezone": "Europe/Bielefeld"}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "nothing", "schedule": "@dayly"}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "add", "kwargs": {"a": 1, "b": "two"}}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, {"callback": "add", "kwargs": "{\"a\": 1, \"b\": 2}"}]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, 1]');
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01"}, null]');
CALL fails('[[{"callback": "nothing", "run_at": "2100-01-01"}]]');
SELECT count(*) FROM taskshed.tasks;

-- The same id twice in one call, wherever
CALL fails('[{"callback": "nothing", "run_at": "2100-01-01", "task_id": "x"},
	{"callback": "nothing", "run_at": "2100-01-01"},
	{"callback": "nothing", "run_at": "2100-01-01", "task_id": "y"},
	{"callback": "add", "kwargs": {"a": 1, "b": 2}, "run_at": "2100-01-02", "task_id": "x"}]');
SELECT count(*) FROM taskshed.tasks;

-- What is no array
CALL fails(NULL);
CALL fails('null');
CALL fails('{"callback": "nothing", "run_at": "2100-01-01"}');
CALL fails('"[]"');
CALL fails('1');

-- Many
SELECT array_length(taskshed.add_tasks(jsonb_agg(jsonb_build_object('callback', 'nothing', 'run_at', '2100-01-01',
	'task_id', 'many ' || i))), 1)
FROM generate_series(1, 5000) i;
SELECT count(*) FROM taskshed.tasks;
SELECT taskshed.remove_all_tasks();

SET client_min_messages = warning;
DROP SCHEMA add_tasks CASCADE;
