/* taskshed 0.9: schema, tables, functions, views and their comments */

\echo Use "CREATE EXTENSION taskshed" to load this file. \quit

COMMENT ON SCHEMA taskshed IS
'taskshed: calls SQL functions at the times they are scheduled for. GRANT USAGE on this schema to the roles that may schedule.';

-- Fails with advice unless the server preloads the library and the schema is in safe hands and empty.
CREATE FUNCTION taskshed._check_install() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_check_install';
REVOKE ALL ON FUNCTION taskshed._check_install() FROM PUBLIC;
COMMENT ON FUNCTION taskshed._check_install() IS
'Internal. Raises an error unless the extension can be installed here.';

SELECT taskshed._check_install();

/*
 * Tables.  What a task is (task) and when it runs next (alarm) are kept apart,
 * so that the keys of a task that recurs are not indexed again at each run.
 * All writing goes through the functions; nobody but superusers has rights here.
 * The constraints are for these: workers write directly, so they check none and
 * rely on none.
 */

CREATE SCHEMA _taskshed;
CREATE SEQUENCE _taskshed.task_seq AS bigint CACHE 1;

CREATE TABLE _taskshed.task (
	id bigint NOT NULL,
	owner oid NOT NULL,
	created_at timestamptz NOT NULL,
	owner_name name COLLATE "C" NOT NULL,
	is_alias boolean NOT NULL,
	task_id text COLLATE "C" NOT NULL,
	group_id text COLLATE "C",
	callback text COLLATE "C" NOT NULL,
	kwargs jsonb NOT NULL,
	run_type text COLLATE "C" NOT NULL,
	every interval,
	schedule text,
	timezone text NOT NULL,
	until timestamptz,
	max_runs integer,
	catch_up text COLLATE "C" NOT NULL,
	start_within interval,
	timeout interval,
	max_attempts integer,
	retry_delay interval,
	retry_backoff double precision,
	retry_max_delay interval,
	history text COLLATE "C",
	CONSTRAINT task_pkey PRIMARY KEY (id),
	CONSTRAINT task_key UNIQUE (owner, task_id),
	CONSTRAINT task_id_length CHECK (length(task_id) BETWEEN 1 AND 255),
	CONSTRAINT group_id_length CHECK (length(group_id) BETWEEN 1 AND 255),
	CONSTRAINT kwargs_object CHECK (jsonb_typeof(kwargs) = 'object'),
	CONSTRAINT run_type_values CHECK (run_type IN ('once', 'recurring')),
	CONSTRAINT catch_up_values CHECK (catch_up IN ('coalesce', 'all', 'skip')),
	CONSTRAINT history_values CHECK (history IN ('all', 'errors', 'none'))
) USING heap;
CREATE INDEX task_group ON _taskshed.task (owner, group_id, task_id) WHERE group_id IS NOT NULL;

COMMENT ON TABLE _taskshed.task IS 'What each task is: one row a task, changed only when the task is replaced. Read it through the view tasks.';

CREATE TABLE _taskshed.alarm (
	id bigint NOT NULL,
	run_at timestamptz NOT NULL,
	scheduled_at timestamptz NOT NULL,
	anchor timestamptz NOT NULL,
	revision bigint NOT NULL,
	run_count bigint NOT NULL,
	owner oid NOT NULL,
	attempt integer NOT NULL,
	failures_in_row integer NOT NULL,
	interruptions integer NOT NULL,
	resume_at timestamptz,
	paused_at timestamptz,
	failed_at timestamptz,
	previous_run_at timestamptz,
	begun_at timestamptz,
	last_run_at timestamptz,
	last_status text COLLATE "C",
	last_sqlstate text COLLATE "C"
) USING heap;
CREATE INDEX alarm_queue ON _taskshed.alarm (owner, run_at, id)
	WHERE paused_at IS NULL AND failed_at IS NULL OR resume_at IS NOT NULL;
CREATE INDEX alarm_task ON _taskshed.alarm (id, run_at);

COMMENT ON TABLE _taskshed.alarm IS 'When each task runs next and how its last run went: one row a task, changed by each run. Read it through the view tasks.';

CREATE TABLE _taskshed.callback (
	owner oid NOT NULL,
	owner_name name COLLATE "C" NOT NULL,
	name text COLLATE "C" NOT NULL,
	callback text COLLATE "C" NOT NULL,
	CONSTRAINT callback_pkey PRIMARY KEY (owner, name),
	CONSTRAINT callback_name_length CHECK (length(name) BETWEEN 1 AND 255)
) USING heap;

COMMENT ON TABLE _taskshed.callback IS 'Aliases of callbacks. Read it through the view callbacks.';

/*
 * The history of runs: a ring of tables.  Runs are recorded in one of them;
 * when that is old or large enough the next is emptied and used.
 */
CREATE SEQUENCE _taskshed.run_seq AS bigint CACHE 1;

-- (Nothing is ever updated or deleted in these, and they are emptied as a whole: there is nothing to
-- vacuum for, except once in a while against wraparound.)
CREATE TABLE _taskshed.run_0 (
	run_id bigint NOT NULL,
	scheduled_at timestamptz NOT NULL,
	started_at timestamptz,
	finished_at timestamptz NOT NULL,
	owner oid NOT NULL,
	attempt integer NOT NULL,
	worker_pid integer,
	status text COLLATE "C" NOT NULL,
	task_id text COLLATE "C" NOT NULL,
	group_id text COLLATE "C",
	callback text COLLATE "C" NOT NULL,
	result text,
	sqlstate text COLLATE "C",
	message text,
	detail text,
	hint text,
	context text
) USING heap WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX run_0_task ON _taskshed.run_0 (task_id);
CREATE TABLE _taskshed.run_1 (LIKE _taskshed.run_0) USING heap WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX run_1_task ON _taskshed.run_1 (task_id);
CREATE TABLE _taskshed.run_2 (LIKE _taskshed.run_0) USING heap WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX run_2_task ON _taskshed.run_2 (task_id);
CREATE TABLE _taskshed.run_3 (LIKE _taskshed.run_0) USING heap WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX run_3_task ON _taskshed.run_3 (task_id);
CREATE TABLE _taskshed.run_4 (LIKE _taskshed.run_0) USING heap WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX run_4_task ON _taskshed.run_4 (task_id);
CREATE TABLE _taskshed.run_5 (LIKE _taskshed.run_0) USING heap WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX run_5_task ON _taskshed.run_5 (task_id);
CREATE TABLE _taskshed.run_6 (LIKE _taskshed.run_0) USING heap WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX run_6_task ON _taskshed.run_6 (task_id);
CREATE TABLE _taskshed.run_7 (LIKE _taskshed.run_0) USING heap WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX run_7_task ON _taskshed.run_7 (task_id);

CREATE TABLE _taskshed.history (
	began_at timestamptz NOT NULL,
	part integer NOT NULL,
	CONSTRAINT history_pkey PRIMARY KEY (part),
	CONSTRAINT history_parts CHECK (part BETWEEN 0 AND 7)
) USING heap;
COMMENT ON TABLE _taskshed.history IS 'Since when each table of the history has been written to; the latest is in use.';
INSERT INTO _taskshed.history VALUES (pg_catalog.clock_timestamp(), 0);

-- Rows that arrive by a restore or by hand reach the scheduler through this.
CREATE FUNCTION taskshed._alarm_changed() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_alarm_changed';
REVOKE ALL ON FUNCTION taskshed._alarm_changed() FROM PUBLIC;
COMMENT ON FUNCTION taskshed._alarm_changed() IS
'Internal. Tells the scheduler of rows that were written without the functions of the extension.';

CREATE TRIGGER alarm_changed AFTER INSERT OR UPDATE ON _taskshed.alarm
FOR EACH ROW EXECUTE FUNCTION taskshed._alarm_changed();
ALTER TABLE _taskshed.alarm ENABLE ALWAYS TRIGGER alarm_changed;

-- Not even pg_write_all_data writes what says as whom something is run.
CREATE FUNCTION taskshed._superusers_only() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_superusers_only';
REVOKE ALL ON FUNCTION taskshed._superusers_only() FROM PUBLIC;
COMMENT ON FUNCTION taskshed._superusers_only() IS
'Internal. Refuses to have a table of the extension written by hand, except by superusers.';

DO $$
DECLARE
	name text;
BEGIN
	FOR name IN SELECT relname FROM pg_catalog.pg_class
		WHERE relnamespace = '_taskshed'::pg_catalog.regnamespace AND relkind = 'r'
	LOOP
		EXECUTE pg_catalog.format('CREATE TRIGGER superusers_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE
			ON _taskshed.%I FOR EACH STATEMENT EXECUTE FUNCTION taskshed._superusers_only()', name);
		EXECUTE pg_catalog.format('ALTER TABLE _taskshed.%I ENABLE ALWAYS TRIGGER superusers_only', name);

		-- what is published of a table without a key would stop a subscriber
		IF NOT EXISTS (SELECT FROM pg_catalog.pg_constraint
			WHERE conrelid = pg_catalog.format('_taskshed.%I', name)::pg_catalog.regclass AND contype = 'p')
		THEN
			EXECUTE pg_catalog.format('ALTER TABLE _taskshed.%I REPLICA IDENTITY FULL', name);
		END IF;
	END LOOP;
END $$;

SELECT pg_catalog.pg_extension_config_dump('_taskshed.task_seq', '');
SELECT pg_catalog.pg_extension_config_dump('_taskshed.task', '');
SELECT pg_catalog.pg_extension_config_dump('_taskshed.alarm', '');
SELECT pg_catalog.pg_extension_config_dump('_taskshed.callback', '');

/* Scheduling */

CREATE FUNCTION taskshed.add_task(
	callback text,
	run_at timestamptz DEFAULT NULL,
	kwargs jsonb DEFAULT NULL,
	run_type text DEFAULT NULL,
	every interval DEFAULT NULL,
	task_id text DEFAULT NULL,
	group_id text DEFAULT NULL,
	paused boolean DEFAULT NULL,
	catch_up text DEFAULT NULL,
	replace_existing boolean DEFAULT NULL,
	schedule text DEFAULT NULL,
	timezone text DEFAULT NULL,
	until timestamptz DEFAULT NULL,
	max_runs integer DEFAULT NULL,
	start_within interval DEFAULT NULL,
	timeout interval DEFAULT NULL,
	max_attempts integer DEFAULT NULL,
	retry_delay interval DEFAULT NULL,
	retry_backoff double precision DEFAULT NULL,
	retry_max_delay interval DEFAULT NULL,
	history text DEFAULT NULL,
	owner name DEFAULT NULL,
	validate boolean DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_add_task';
COMMENT ON FUNCTION taskshed.add_task(text, timestamptz, jsonb, text, interval, text, text, boolean, text, boolean, text, text, timestamptz, integer, interval, interval, integer, interval, double precision, interval, text, name, boolean) IS
'Schedules callback to be called at run_at (default now) with the keys of kwargs as named arguments; with every, again at each interval from run_at. A task of the same task_id and owner is replaced unless replace_existing is false. Returns the task_id. Errors: 42883 unknown callback or argument, 22023 bad option, 22001 id too long, 42501 not allowed.';

CREATE FUNCTION taskshed.add_tasks(tasks jsonb, replace_existing boolean DEFAULT NULL)
RETURNS text[]
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_add_tasks';
COMMENT ON FUNCTION taskshed.add_tasks(jsonb, boolean) IS
'Schedules many tasks, all or none: an array of objects whose keys are the parameters of add_task. replace_existing is the default of the elements that do not say. Returns the task_ids in order. Errors as add_task, naming the element.';

CREATE FUNCTION taskshed.pause_tasks(task_ids text[] DEFAULT NULL, group_id text DEFAULT NULL, owner name DEFAULT NULL)
RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_pause_tasks';
COMMENT ON FUNCTION taskshed.pause_tasks(text[], text, name) IS
'Suspends tasks, named by task_ids or by group_id, until they are resumed; a run in progress goes on. Returns how many were not paused before.';

CREATE FUNCTION taskshed.resume_tasks(task_ids text[] DEFAULT NULL, group_id text DEFAULT NULL, owner name DEFAULT NULL)
RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_resume_tasks';
COMMENT ON FUNCTION taskshed.resume_tasks(text[], text, name) IS
'Ends the pause of tasks, named by task_ids or by group_id; their run_at stays, so overdue ones run at once, by their catch_up. Returns how many were paused.';

CREATE FUNCTION taskshed.remove_tasks(task_ids text[] DEFAULT NULL, group_id text DEFAULT NULL, owner name DEFAULT NULL)
RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_remove_tasks';
COMMENT ON FUNCTION taskshed.remove_tasks(text[], text, name) IS
'Removes tasks, named by task_ids or by group_id; a run in progress goes on. Returns how many there were.';

CREATE FUNCTION taskshed.remove_all_tasks(owner name DEFAULT NULL)
RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_remove_all_tasks';
COMMENT ON FUNCTION taskshed.remove_all_tasks(name) IS
'Removes all tasks of owner (default: the current user). Returns how many there were.';

CREATE FUNCTION taskshed.pause_task(task_id text, owner name DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_pause_task';
COMMENT ON FUNCTION taskshed.pause_task(text, name) IS
'Suspends a task until it is resumed; a run in progress goes on. Returns whether it was there and not paused before.';

CREATE FUNCTION taskshed.resume_task(task_id text, owner name DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_resume_task';
COMMENT ON FUNCTION taskshed.resume_task(text, name) IS
'Ends the pause of a task. Returns whether it was paused.';

CREATE FUNCTION taskshed.remove_task(task_id text, owner name DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_remove_task';
COMMENT ON FUNCTION taskshed.remove_task(text, name) IS
'Removes a task; a run in progress goes on. Returns whether it was there.';

CREATE TYPE taskshed.task_execution_time AS (task_id text, run_at timestamptz);

CREATE FUNCTION taskshed.update_execution_times(tasks taskshed.task_execution_time[], owner name DEFAULT NULL)
RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_update_execution_times';
COMMENT ON FUNCTION taskshed.update_execution_times(taskshed.task_execution_time[], name) IS
'Moves tasks to new times, which become the anchors of their grids; a failed task is scheduled again, a paused one stays paused. Returns how many there were.';

CREATE FUNCTION taskshed.update_execution_time(task_id text, run_at timestamptz DEFAULT NULL, owner name DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_update_execution_time';
COMMENT ON FUNCTION taskshed.update_execution_time(text, timestamptz, name) IS
'Moves a task to a new time, which becomes the anchor of its grid; a failed task is scheduled again, a paused one stays paused. Returns whether it was there.';

CREATE FUNCTION taskshed.try_task(task_id text)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_try_task';
COMMENT ON FUNCTION taskshed.try_task(text) IS
'Calls the callback of one of the current user''s own tasks now, in this session and transaction, and returns its result as text. The schedule does not change.';

CREATE FUNCTION taskshed.next_wakeup()
RETURNS timestamptz
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_next_wakeup';
COMMENT ON FUNCTION taskshed.next_wakeup() IS
'Earliest run_at of the tasks that the current user may see and that are neither paused nor failed; NULL when there is none.';

CREATE FUNCTION taskshed.current_task(
	OUT task_id text, OUT group_id text, OUT run_at timestamptz, OUT attempt integer,
	OUT lag interval, OUT previous_run_at timestamptz)
RETURNS record
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_current_task';
COMMENT ON FUNCTION taskshed.current_task() IS
'Within a run: the task, the time this run is for, which attempt it is, how late it started, and the time the run before was for. NULL elsewhere.';

/* Callbacks */

CREATE FUNCTION taskshed.add_callback(name text, callback text DEFAULT NULL, replace_existing boolean DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_add_callback';
COMMENT ON FUNCTION taskshed.add_callback(text, text, boolean) IS
'Makes name an alias of a function or procedure for the tasks of the current user. With replace_existing tasks that name it follow. Errors: 42710 name taken, 42883 no such function.';

CREATE FUNCTION taskshed.remove_callback(name text)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_remove_callback';
COMMENT ON FUNCTION taskshed.remove_callback(text) IS
'Removes an alias of the current user. Tasks that name it fail until there is one again. Returns whether it was there.';

CREATE PROCEDURE taskshed.execute(command text)
LANGUAGE c AS 'MODULE_PATHNAME', 'ts_execute';
REVOKE ALL ON PROCEDURE taskshed.execute(text) FROM PUBLIC;
COMMENT ON PROCEDURE taskshed.execute(text) IS
'A callback that runs one SQL command at top level, as its owner; VACUUM and CREATE INDEX CONCURRENTLY can be run too. Not granted to PUBLIC. It can only be scheduled, not called.';

/* Part of the interface, not built yet: each raises 0A000. */

CREATE FUNCTION taskshed.cancel_tasks(task_ids text[] DEFAULT NULL, group_id text DEFAULT NULL, owner name DEFAULT NULL)
RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_cancel_tasks';
COMMENT ON FUNCTION taskshed.cancel_tasks(text[], text, name) IS
'Stops the runs in progress of tasks, named by task_ids or by group_id; a one-off task is then failed, a recurring one goes on at its next time. Returns how many were told to stop.';

CREATE FUNCTION taskshed.retry_tasks(task_ids text[] DEFAULT NULL, group_id text DEFAULT NULL, owner name DEFAULT NULL)
RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_retry_tasks';
COMMENT ON FUNCTION taskshed.retry_tasks(text[], text, name) IS
'Sends failed tasks, named by task_ids or by group_id, round again at once, with their attempts counted anew. Returns how many had failed.';

CREATE FUNCTION taskshed.run_tasks(task_ids text[] DEFAULT NULL, group_id text DEFAULT NULL, owner name DEFAULT NULL)
RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_run_tasks';
COMMENT ON FUNCTION taskshed.run_tasks(text[], text, name) IS
'Runs tasks, named by task_ids or by group_id, once in the background, paused or not; their schedule stays as it is. Returns how many there were.';

CREATE FUNCTION taskshed.cancel_task(task_id text, owner name DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_cancel_task';
COMMENT ON FUNCTION taskshed.cancel_task(text, name) IS
'Stops the run in progress of a task; a one-off task is then failed, a recurring one goes on at its next time. Returns whether there was one.';

CREATE FUNCTION taskshed.retry_task(task_id text, owner name DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_retry_task';
COMMENT ON FUNCTION taskshed.retry_task(text, name) IS
'Sends a failed task round again at once, with its attempts counted anew. Returns whether it had failed.';

CREATE FUNCTION taskshed.next_runs(
	schedule text DEFAULT NULL, timezone text DEFAULT NULL, after timestamptz DEFAULT NULL, n integer DEFAULT NULL,
	every interval DEFAULT NULL, run_at timestamptz DEFAULT NULL, task_id text DEFAULT NULL)
RETURNS SETOF timestamptz
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_not_supported';
COMMENT ON FUNCTION taskshed.next_runs(text, text, timestamptz, integer, interval, timestamptz, text) IS 'The next times of a schedule, an interval or a task. Not supported yet: raises 0A000.';

CREATE FUNCTION taskshed.describe(schedule text, timezone text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_not_supported';
COMMENT ON FUNCTION taskshed.describe(text, text) IS 'A schedule in plain English. Not supported yet: raises 0A000.';

CREATE FUNCTION taskshed.import_pg_cron(deactivate boolean DEFAULT NULL, OUT jobid bigint, OUT task_id text, OUT result text)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_not_supported';
COMMENT ON FUNCTION taskshed.import_pg_cron(boolean) IS 'Brings the jobs of pg_cron as paused tasks. Not supported yet: raises 0A000.';

CREATE FUNCTION taskshed.export_pg_cron()
RETURNS SETOF text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_not_supported';
COMMENT ON FUNCTION taskshed.export_pg_cron() IS 'A psql script that schedules the jobs of pg_cron here. Not supported yet: raises 0A000.';

/* Views */

CREATE FUNCTION taskshed._running(OUT id bigint, OUT running_since timestamptz, OUT worker_pid integer)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 4 AS 'MODULE_PATHNAME', 'ts_running';
COMMENT ON FUNCTION taskshed._running() IS
'Internal. The runs in progress in this database that the current user may see.';

CREATE FUNCTION taskshed._status(
	OUT database oid, OUT state text, OUT scheduler_pid integer, OUT workers integer, OUT running integer,
	OUT due integer, OUT oldest_due timestamptz, OUT failed integer, OUT next_wakeup timestamptz,
	OUT runs_ok bigint, OUT runs_failed bigint, OUT last_failure_at timestamptz, OUT message text)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 4 AS 'MODULE_PATHNAME', 'ts_status';
COMMENT ON FUNCTION taskshed._status() IS
'Internal. A row for each database that the current user may see, with what it may know of it.';

/*
 * What the reader may see of all tasks: those of roles whose privileges it has,
 * and for pg_read_all_stats everybody's without arguments and error texts.  The
 * quals that fetch_task and fetch_tasks add are leakproof, so they reach the
 * indexes in spite of the barrier.
 */
CREATE VIEW _taskshed.task_details WITH (security_barrier) AS
SELECT t.id,
	t.owner AS owner_oid,
	coalesce((SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid = t.owner), t.owner::text::name) AS owner,
	t.task_id,
	t.group_id,
	t.callback,
	CASE WHEN pg_catalog.pg_has_role(t.owner, 'USAGE') THEN t.kwargs END AS kwargs,
	t.run_type,
	coalesce(a.resume_at, a.run_at) AS run_at,
	t.every,
	t.schedule,
	t.timezone,
	t.until,
	t.max_runs,
	t.catch_up,
	t.start_within,
	t.timeout,
	t.max_attempts,
	t.retry_delay,
	t.retry_backoff,
	t.retry_max_delay,
	t.history,
	CASE WHEN x.id IS NOT NULL THEN 'running'
		WHEN a.failed_at IS NOT NULL THEN 'failed'
		WHEN a.paused_at IS NOT NULL THEN 'paused'
		WHEN coalesce(a.resume_at, a.run_at) <= pg_catalog.clock_timestamp() THEN 'due'
		ELSE 'scheduled' END AS state,
	a.paused_at,
	a.attempt,
	x.running_since,
	x.worker_pid,
	a.last_run_at,
	a.last_status,
	a.last_sqlstate,
	a.run_count,
	a.failures_in_row,
	t.created_at
FROM _taskshed.task t
	JOIN _taskshed.alarm a ON a.id = t.id
	LEFT JOIN taskshed._running() x ON x.id = t.id
WHERE pg_catalog.pg_has_role(t.owner, 'USAGE')
	OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE');
COMMENT ON VIEW _taskshed.task_details IS 'Internal. The view tasks with the internal keys.';

CREATE VIEW taskshed.tasks AS
SELECT owner, task_id, group_id, callback, kwargs, run_type, run_at, every, schedule, timezone, until,
	max_runs, catch_up, start_within, timeout, max_attempts, retry_delay, retry_backoff, retry_max_delay,
	history, state, paused_at, attempt, running_since, worker_pid, last_run_at, last_status,
	last_sqlstate, run_count, failures_in_row, created_at
FROM _taskshed.task_details;
COMMENT ON VIEW taskshed.tasks IS 'The tasks that the reader may see, with when they run and how the last run went.';

CREATE VIEW taskshed.status AS
SELECT d.datname AS database, s.state, s.scheduler_pid, s.workers, s.running, s.due, s.oldest_due, s.failed,
	s.next_wakeup, s.runs_ok, s.runs_failed, s.last_failure_at, s.message
FROM taskshed._status() s JOIN pg_catalog.pg_database d ON d.oid = s.database;
COMMENT ON VIEW taskshed.status IS 'How taskshed does in each database: a row for the current one, and for those who have pg_read_all_stats a row for each that taskshed serves. To others it shows whether tasks run, and counts of the tasks that they may see. Counts start again when the server does.';

CREATE VIEW taskshed.runs WITH (security_barrier) AS
SELECT r.run_id,
	coalesce((SELECT a.rolname FROM pg_catalog.pg_roles a WHERE a.oid = r.owner), r.owner::text::name) AS owner,
	r.task_id,
	r.group_id,
	r.callback,
	r.scheduled_at,
	r.started_at,
	r.finished_at,
	r.status,
	r.attempt,
	CASE WHEN pg_catalog.pg_has_role(r.owner, 'USAGE') THEN r.result END AS result,
	r.sqlstate,
	CASE WHEN pg_catalog.pg_has_role(r.owner, 'USAGE') THEN r.message END AS message,
	CASE WHEN pg_catalog.pg_has_role(r.owner, 'USAGE') THEN r.detail END AS detail,
	CASE WHEN pg_catalog.pg_has_role(r.owner, 'USAGE') THEN r.hint END AS hint,
	CASE WHEN pg_catalog.pg_has_role(r.owner, 'USAGE') THEN r.context END AS context,
	r.worker_pid
FROM (SELECT * FROM _taskshed.run_0
	UNION ALL SELECT * FROM _taskshed.run_1
	UNION ALL SELECT * FROM _taskshed.run_2
	UNION ALL SELECT * FROM _taskshed.run_3
	UNION ALL SELECT * FROM _taskshed.run_4
	UNION ALL SELECT * FROM _taskshed.run_5
	UNION ALL SELECT * FROM _taskshed.run_6
	UNION ALL SELECT * FROM _taskshed.run_7) r
WHERE pg_catalog.pg_has_role(r.owner, 'USAGE')
	OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE');
COMMENT ON VIEW taskshed.runs IS 'The history of runs that the reader may see, bounded by taskshed.history_retention and taskshed.history_max_size.';

CREATE VIEW taskshed.callbacks WITH (security_barrier) AS
SELECT coalesce((SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid = c.owner), c.owner::text::name) AS owner,
	c.name, c.callback
FROM _taskshed.callback c
WHERE pg_catalog.pg_has_role(c.owner, 'USAGE')
	OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE');
COMMENT ON VIEW taskshed.callbacks IS 'The aliases of callbacks that the reader may see.';

CREATE FUNCTION taskshed.fetch_tasks(task_ids text[] DEFAULT NULL, group_id text DEFAULT NULL, owner name DEFAULT NULL)
RETURNS SETOF taskshed.tasks
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_fetch_tasks';
COMMENT ON FUNCTION taskshed.fetch_tasks(text[], text, name) IS
'The tasks named by task_ids or by group_id, or all of owner''s (default: the current user''s), by run_at and task_id.';

CREATE FUNCTION taskshed.fetch_task(task_id text, owner name DEFAULT NULL)
RETURNS taskshed.tasks
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_fetch_task';
COMMENT ON FUNCTION taskshed.fetch_task(text, name) IS 'The task, or NULL when there is none.';

/*
 * Default privileges of the role that installs the extension may have granted
 * more than is meant, and who can write the tables can have anything run as
 * anybody.
 */
DO $$
DECLARE
	role text;
BEGIN
	FOR role IN
		SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END
		FROM (SELECT relacl FROM pg_catalog.pg_class WHERE relnamespace IN ('taskshed'::pg_catalog.regnamespace, '_taskshed'::pg_catalog.regnamespace)
			UNION ALL SELECT nspacl FROM pg_catalog.pg_namespace WHERE nspname = 'taskshed') AS o (acl),
			pg_catalog.aclexplode(o.acl) AS a
		WHERE a.grantee <> a.grantor
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON ALL TABLES IN SCHEMA taskshed, _taskshed FROM %s', role);
		EXECUTE pg_catalog.format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA taskshed, _taskshed FROM %s', role);
		EXECUTE pg_catalog.format('REVOKE CREATE ON SCHEMA taskshed FROM %s', role);
	END LOOP;
END $$;

GRANT SELECT ON _taskshed.task_details, taskshed.tasks, taskshed.status, taskshed.runs, taskshed.callbacks TO PUBLIC;

/* Asks for a scheduler in this database when the transaction commits. */
CREATE FUNCTION taskshed._start_scheduler() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_start_scheduler';
REVOKE ALL ON FUNCTION taskshed._start_scheduler() FROM PUBLIC;
COMMENT ON FUNCTION taskshed._start_scheduler() IS
'Internal. Asks for a scheduler in this database when the transaction commits.';

SELECT taskshed._start_scheduler();
