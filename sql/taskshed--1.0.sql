/* taskshed 1.0: schema, tables, functions, views and their comments */

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
 * Tables.  They are in a schema of their own, where psql does not offer their names
 * to those who look for ours.  Internal functions are not: some are called by their
 * names as the user, who has USAGE on taskshed only.
 * What a task is (task) and when it runs next (alarm) are kept apart,
 * so that the keys of a task that recurs are not indexed again at each run.
 * All writing goes through the functions; nobody but superusers has rights here.
 * The constraints are for these: workers write directly, so they check none and
 * rely on none.
 */

CREATE SCHEMA _taskshed;
COMMENT ON SCHEMA _taskshed IS 'The tables of taskshed. Read them through the views in the schema taskshed.';

CREATE SEQUENCE _taskshed.task_seq AS bigint CACHE 1;
COMMENT ON SEQUENCE _taskshed.task_seq IS 'Internal keys of tasks, and numbers of requests.';

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
	description text,
	on_failure text COLLATE "C",
	notify text COLLATE "C",
	settings jsonb,
	options jsonb,
	after_status text COLLATE "C",
	CONSTRAINT task_pkey PRIMARY KEY (id),
	CONSTRAINT task_key UNIQUE (owner, task_id),
	CONSTRAINT task_id_length CHECK (length(task_id) BETWEEN 1 AND 255),
	CONSTRAINT group_id_length CHECK (length(group_id) BETWEEN 1 AND 255),
	CONSTRAINT kwargs_object CHECK (jsonb_typeof(kwargs) = 'object'),
	CONSTRAINT run_type_values CHECK (run_type IN ('once', 'recurring')),
	CONSTRAINT catch_up_values CHECK (catch_up IN ('coalesce', 'all', 'skip')),
	CONSTRAINT history_values CHECK (history IN ('all', 'errors', 'none')),
	CONSTRAINT either_times CHECK (every IS NULL OR schedule IS NULL),
	CONSTRAINT after_status_values CHECK (after_status IN ('succeeded', 'ended', 'failed'))
) USING heap;
CREATE INDEX task_group ON _taskshed.task (owner, group_id, task_id) WHERE group_id IS NOT NULL;

COMMENT ON TABLE _taskshed.task IS 'What each task is: one row a task, changed only when the task is replaced. Read it through the view tasks.';
COMMENT ON COLUMN _taskshed.task.id IS 'Internal key; new when a task is removed and added again, kept when it is replaced.';
COMMENT ON COLUMN _taskshed.task.owner IS 'OID of the role that the task runs as.';
COMMENT ON COLUMN _taskshed.task.created_at IS 'When the task was first added.';
COMMENT ON COLUMN _taskshed.task.owner_name IS 'Name that the owner had when the task was last written, for a restore into another server.';
COMMENT ON COLUMN _taskshed.task.is_alias IS 'Whether callback is an alias of the owner''s rather than a function.';
COMMENT ON COLUMN _taskshed.task.task_id IS 'The task''s name, unique for its owner, 1 to 255 characters.';
COMMENT ON COLUMN _taskshed.task.group_id IS 'Group that the task belongs to, 1 to 255 characters, or NULL.';
COMMENT ON COLUMN _taskshed.task.callback IS 'Schema-qualified name of the function or procedure that is called, or an alias.';
COMMENT ON COLUMN _taskshed.task.kwargs IS 'Named arguments of the callback, a JSON object.';
COMMENT ON COLUMN _taskshed.task.run_type IS 'once or recurring.';
COMMENT ON COLUMN _taskshed.task.every IS 'Interval between the times of a recurring task.';
COMMENT ON COLUMN _taskshed.task.schedule IS 'Cron expression of a recurring task, as it was given.';
COMMENT ON COLUMN _taskshed.task.timezone IS 'Time zone in which the schedule, and the days and months of every, are counted.';
COMMENT ON COLUMN _taskshed.task.until IS 'No run after this time.';
COMMENT ON COLUMN _taskshed.task.max_runs IS 'No more runs than this.';
COMMENT ON COLUMN _taskshed.task.catch_up IS 'What becomes of times that were missed: coalesce, all or skip.';
COMMENT ON COLUMN _taskshed.task.start_within IS 'A run that cannot start this soon after its time is missed.';
COMMENT ON COLUMN _taskshed.task.timeout IS 'Longest duration of a run; NULL is what taskshed.timeout says.';
COMMENT ON COLUMN _taskshed.task.max_attempts IS 'How often a run is tried; 0 means until it succeeds, NULL once.';
COMMENT ON COLUMN _taskshed.task.retry_delay IS 'Delay before the second attempt.';
COMMENT ON COLUMN _taskshed.task.retry_backoff IS 'Factor by which the delay grows with each further attempt.';
COMMENT ON COLUMN _taskshed.task.retry_max_delay IS 'Longest delay between attempts.';
COMMENT ON COLUMN _taskshed.task.history IS 'Which runs are recorded: all, errors or none; NULL is what taskshed.history says.';
COMMENT ON COLUMN _taskshed.task.description IS 'What the task is for, in the words of who added it; for people only.';
COMMENT ON COLUMN _taskshed.task.on_failure IS 'Callback or alias that a task is scheduled for when this one fails; NULL is what taskshed.on_failure says, empty none.';
COMMENT ON COLUMN _taskshed.task.notify IS 'Channel that is notified of the end of each run, or NULL.';
COMMENT ON COLUMN _taskshed.task.settings IS 'Settings of the session in which the task runs, a JSON object, or NULL.';
COMMENT ON COLUMN _taskshed.task.options IS 'Further options, a JSON object: notify_result, whether notices tell the result; NULL for none.';
COMMENT ON COLUMN _taskshed.task.after_status IS 'Which ends of the tasks that it runs after are waited for: succeeded, ended or failed; NULL is succeeded.';
COMMENT ON INDEX _taskshed.task_pkey IS 'Finds a task by its internal key.';
COMMENT ON INDEX _taskshed.task_key IS 'Finds a task by its owner and task_id.';
COMMENT ON INDEX _taskshed.task_group IS 'Finds the tasks of a group.';

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
	last_sqlstate text COLLATE "C",
	last_error text,
	late_from timestamptz,
	restarts integer,
	shortage_since timestamptz,
	close_failures integer,
	asked_at timestamptz,
	task_tid tid,
	waiting_since timestamptz,
	follows boolean,
	followed boolean,
	settled_from bigint
) USING heap;
CREATE INDEX alarm_queue ON _taskshed.alarm (owner, run_at, id)
	WHERE paused_at IS NULL AND failed_at IS NULL AND waiting_since IS NULL OR resume_at IS NOT NULL;
CREATE INDEX alarm_task ON _taskshed.alarm (id, run_at);
CREATE INDEX alarm_failed ON _taskshed.alarm (failed_at) WHERE failed_at IS NOT NULL;

COMMENT ON TABLE _taskshed.alarm IS 'When each task runs next and how its last run went: one row a task, changed by each run. Read it through the view tasks.';
COMMENT ON COLUMN _taskshed.alarm.id IS 'Internal key of the task.';
COMMENT ON COLUMN _taskshed.alarm.run_at IS 'When the next run or attempt is to start.';
COMMENT ON COLUMN _taskshed.alarm.scheduled_at IS 'The time that this run is for: run_at, unless that is the time of a further attempt.';
COMMENT ON COLUMN _taskshed.alarm.anchor IS 'Time from which the grid of every is counted.';
COMMENT ON COLUMN _taskshed.alarm.revision IS 'Raised when the task is replaced or re-timed; a run writes its outcome only to the revision it started from.';
COMMENT ON COLUMN _taskshed.alarm.run_count IS 'Runs that have ended, failed ones included; -1 while one goes on that was begun for another task of this name.';
COMMENT ON COLUMN _taskshed.alarm.owner IS 'OID of the role that the task runs as.';
COMMENT ON COLUMN _taskshed.alarm.attempt IS 'Attempts made for run_at so far.';
COMMENT ON COLUMN _taskshed.alarm.failures_in_row IS 'Failed runs since the last one that succeeded.';
COMMENT ON COLUMN _taskshed.alarm.interruptions IS 'Runs in a row that lost their worker or the server.';
COMMENT ON COLUMN _taskshed.alarm.resume_at IS 'While a run beside the schedule waits or runs: the run_at to go back to.';
COMMENT ON COLUMN _taskshed.alarm.failed_at IS 'When the task failed for good: it will not run again by itself. Null if it has not.';
COMMENT ON COLUMN _taskshed.alarm.paused_at IS 'When the task was paused; NULL when it is not.';
COMMENT ON COLUMN _taskshed.alarm.previous_run_at IS 'The time that the last run was for.';
COMMENT ON COLUMN _taskshed.alarm.begun_at IS 'When a procedure or command was begun whose end has not been recorded; null otherwise, and for functions always.';
COMMENT ON COLUMN _taskshed.alarm.last_run_at IS 'When the last run started.';
COMMENT ON COLUMN _taskshed.alarm.last_status IS 'How the last run ended: succeeded, failed, timeout, cancelled, interrupted, missed or skipped.';
COMMENT ON COLUMN _taskshed.alarm.last_sqlstate IS 'SQLSTATE of the last error; NULL after a run that succeeded.';
COMMENT ON COLUMN _taskshed.alarm.last_error IS 'Message of the last error; NULL after a run that succeeded.';
COMMENT ON COLUMN _taskshed.alarm.late_from IS 'How late the next run is, is counted from then, if that is after scheduled_at; infinity: it has begun before, and is not late any more. NULL: from scheduled_at.';
COMMENT ON COLUMN _taskshed.alarm.restarts IS 'Runs for scheduled_at that have begun and were cut off, whatever by; NULL for none.';
COMMENT ON COLUMN _taskshed.alarm.shortage_since IS 'Since when the run for scheduled_at fails because the server is short of disk space, memory or connections, and is tried again without being counted.';
COMMENT ON COLUMN _taskshed.alarm.close_failures IS 'Failures in a row, each within a minute of the one before; NULL after a run that succeeded.';
COMMENT ON COLUMN _taskshed.alarm.asked_at IS 'When a one-off task was last added as it is already: a run in progress then is followed by another, if it succeeds. Of a task that is run at request: when it was last asked for while it was due or running.';
COMMENT ON COLUMN _taskshed.alarm.task_tid IS 'Where the row in task is, or was: looked at first, and only a row of this id counts. NULL: unknown.';
COMMENT ON COLUMN _taskshed.alarm.waiting_since IS 'Since when the task waits for others, or to be asked for; NULL when it does not.';
COMMENT ON COLUMN _taskshed.alarm.follows IS 'True if the task runs after others, which edge names; NULL if not.';
COMMENT ON COLUMN _taskshed.alarm.followed IS 'True if others run after the task, or did; NULL if not.';
COMMENT ON COLUMN _taskshed.alarm.settled_from IS 'Internal key of a task: none of those with a higher one is waited for any more, as far as that was looked for.';
COMMENT ON INDEX _taskshed.alarm_queue IS 'The queue: tasks that will run, by owner and time.';
COMMENT ON INDEX _taskshed.alarm_task IS 'Finds the alarm of a task, the latest version first when read backwards.';
COMMENT ON INDEX _taskshed.alarm_failed IS 'The tasks that have failed, in the order in which they did.';

-- (Marking an end is an update in place, if there is room on the page.)
CREATE TABLE _taskshed.edge (
	child bigint NOT NULL,
	parent bigint NOT NULL,
	task_id text COLLATE "C" NOT NULL,
	gone boolean,
	done_at timestamptz,
	run_at timestamptz,
	status text COLLATE "C",
	sqlstate text COLLATE "C",
	message text,
	result text,
	next_done_at timestamptz,
	next_run_at timestamptz,
	next_status text COLLATE "C",
	next_sqlstate text COLLATE "C",
	next_message text,
	next_result text,
	CONSTRAINT edge_pkey PRIMARY KEY (child, parent)
) USING heap WITH (fillfactor = 70);
CREATE INDEX edge_parent ON _taskshed.edge (parent, child);

COMMENT ON TABLE _taskshed.edge IS 'Which tasks run after which, and what has become of these: a row for each two. Read it through the views tasks and followers.';
COMMENT ON COLUMN _taskshed.edge.child IS 'Internal key of the task that runs after the other.';
COMMENT ON COLUMN _taskshed.edge.parent IS 'Internal key of the other one.';
COMMENT ON COLUMN _taskshed.edge.task_id IS 'Name of the other one, which may be gone.';
COMMENT ON COLUMN _taskshed.edge.gone IS 'True if the other one is no more; NULL if it is there.';
COMMENT ON COLUMN _taskshed.edge.done_at IS 'When the other one has ended, for the run that is waited for or was begun; NULL if it has not.';
COMMENT ON COLUMN _taskshed.edge.run_at IS 'The time that this run of the other one was for.';
COMMENT ON COLUMN _taskshed.edge.status IS 'How it has ended: succeeded, failed, timeout, cancelled, interrupted, missed or skipped.';
COMMENT ON COLUMN _taskshed.edge.sqlstate IS 'SQLSTATE of its error.';
COMMENT ON COLUMN _taskshed.edge.message IS 'Message of its error.';
COMMENT ON COLUMN _taskshed.edge.result IS 'What it has returned, as text; NULL if that is longer than a megabyte.';
COMMENT ON COLUMN _taskshed.edge.next_done_at IS 'When the other one has ended since this task was due, which counts for the next run.';
COMMENT ON COLUMN _taskshed.edge.next_run_at IS 'The time that this run of the other one was for.';
COMMENT ON COLUMN _taskshed.edge.next_status IS 'How it has ended.';
COMMENT ON COLUMN _taskshed.edge.next_sqlstate IS 'SQLSTATE of its error.';
COMMENT ON COLUMN _taskshed.edge.next_message IS 'Message of its error.';
COMMENT ON COLUMN _taskshed.edge.next_result IS 'What it has returned, as text.';
COMMENT ON INDEX _taskshed.edge_pkey IS 'Finds what a task runs after.';
COMMENT ON INDEX _taskshed.edge_parent IS 'Finds what runs after a task.';

-- (Not dumped: activate() has all that can be asked for run once.  Nobody waits for another here: so numbers need
-- not be unique, and vacuum does not lock the table to make it shorter.)
CREATE TABLE _taskshed.request (
	number bigint NOT NULL,
	id bigint NOT NULL
) USING heap WITH (vacuum_truncate = off);
CREATE INDEX request_number ON _taskshed.request (number);

COMMENT ON TABLE _taskshed.request IS 'Runs that request_run() has asked for: the scheduler takes the rows when they are committed.';
COMMENT ON COLUMN _taskshed.request.number IS 'Number of the request, by which the scheduler finds it.';
COMMENT ON COLUMN _taskshed.request.id IS 'Internal key of the task.';
COMMENT ON INDEX _taskshed.request_number IS 'Finds a request by its number.';

CREATE TABLE _taskshed.callback (
	owner oid NOT NULL,
	owner_name name COLLATE "C" NOT NULL,
	name text COLLATE "C" NOT NULL,
	callback text COLLATE "C" NOT NULL,
	CONSTRAINT callback_pkey PRIMARY KEY (owner, name),
	CONSTRAINT callback_name_length CHECK (length(name) BETWEEN 1 AND 255)
) USING heap;

COMMENT ON TABLE _taskshed.callback IS 'Aliases of callbacks. Read it through the view callbacks.';
COMMENT ON COLUMN _taskshed.callback.owner IS 'OID of the role whose tasks can use the alias.';
COMMENT ON COLUMN _taskshed.callback.owner_name IS 'Name that the owner had when the alias was last written, for a restore into another server.';
COMMENT ON COLUMN _taskshed.callback.name IS 'The alias, unique for its owner, 1 to 255 characters.';
COMMENT ON COLUMN _taskshed.callback.callback IS 'Schema-qualified name of the function or procedure that it stands for.';
COMMENT ON INDEX _taskshed.callback_pkey IS 'Finds an alias by its owner and name.';

-- (Not dumped: tasks that were restored without it are held.)
CREATE TABLE _taskshed.home (
	database oid NOT NULL,
	restored boolean NOT NULL
) USING heap;
COMMENT ON TABLE _taskshed.home IS 'The database that the tasks and aliases are meant for. In another one, a copy, they are held until activate() is called.';
COMMENT ON COLUMN _taskshed.home.database IS 'OID of the database.';
COMMENT ON COLUMN _taskshed.home.restored IS 'Whether they came into it by other ways than scheduling, as when a dump is restored: then they are held as well.';

/*
 * The history of runs: a ring of tables.  Runs are recorded in one of them;
 * when that is old or large enough the next is emptied and used.
 */
-- (A process draws as many numbers at a time as RUN_NUMBERS in src/run/history.c says.)
CREATE SEQUENCE _taskshed.run_seq AS bigint INCREMENT 64 CACHE 1;
COMMENT ON SEQUENCE _taskshed.run_seq IS 'Numbers of runs, 64 at a time.';

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
	context text,
	by_hand boolean
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
COMMENT ON COLUMN _taskshed.history.began_at IS 'When the table was emptied and taken into use.';
COMMENT ON COLUMN _taskshed.history.part IS 'Number of the table: 0 is run_0.';
COMMENT ON INDEX _taskshed.history_pkey IS 'Finds a table of the history.';
INSERT INTO _taskshed.history VALUES (pg_catalog.clock_timestamp(), 0);

DO $$
DECLARE
	part integer;
	col record;
BEGIN
	FOR part IN 0..7 LOOP
		EXECUTE pg_catalog.format('COMMENT ON TABLE _taskshed.run_%s IS %L', part,
			'A part of the history of runs. Read it through the view runs.');
		EXECUTE pg_catalog.format('COMMENT ON INDEX _taskshed.run_%s_task IS %L', part,
			'Finds the runs of a task.');
		FOR col IN SELECT * FROM (VALUES
			('run_id', 'Number of the run. Numbers do not rise with time: order by finished_at.'),
			('scheduled_at', 'The time that the run was for.'),
			('started_at', 'When it started; NULL for one that was missed or skipped.'),
			('finished_at', 'When it ended, or was found to be missed or skipped.'),
			('owner', 'OID of the role that the task ran as.'),
			('attempt', 'Which attempt it was, from 1.'),
			('worker_pid', 'Process that ran it.'),
			('status', 'succeeded, failed, timeout, cancelled, interrupted, missed or skipped.'),
			('task_id', 'The task.'),
			('group_id', 'Group that the task belonged to, or NULL.'),
			('callback', 'What was called.'),
			('result', 'What the callback returned, as text.'),
			('sqlstate', 'SQLSTATE of the error.'),
			('message', 'Message of the error.'),
			('detail', 'Detail of the error.'),
			('hint', 'Hint of the error.'),
			('context', 'Context of the error.'),
			('by_hand', 'True for a run beside the schedule that run_tasks asked for; NULL for others.')) AS c (name, description)
		LOOP
			EXECUTE pg_catalog.format('COMMENT ON COLUMN _taskshed.run_%s.%I IS %L', part,
				col.name, col.description);
		END LOOP;
	END LOOP;
END $$;

-- Rows that arrive by a restore or by hand reach the scheduler through this.
CREATE FUNCTION taskshed._alarm_changed() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_alarm_changed';
REVOKE ALL ON FUNCTION taskshed._alarm_changed() FROM PUBLIC;
COMMENT ON FUNCTION taskshed._alarm_changed() IS
'Internal. Tells the scheduler of rows that were written without the functions of the extension.';

CREATE TRIGGER alarm_changed AFTER INSERT OR UPDATE ON _taskshed.alarm
FOR EACH ROW EXECUTE FUNCTION taskshed._alarm_changed();
ALTER TABLE _taskshed.alarm ENABLE ALWAYS TRIGGER alarm_changed;
COMMENT ON TRIGGER alarm_changed ON _taskshed.alarm IS
'Tells the scheduler of rows that were written without the functions of the extension.';

-- Not even pg_write_all_data writes what says as whom something is run.
CREATE FUNCTION taskshed._superusers_only() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_superusers_only';
REVOKE ALL ON FUNCTION taskshed._superusers_only() FROM PUBLIC;
COMMENT ON FUNCTION taskshed._superusers_only() IS
'Internal. Refuses to have a table of the extension written by hand, except by superusers.';

-- What a dump brings is noticed; what a subscription receives is the publisher's.
CREATE FUNCTION taskshed._guard() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_guard';
REVOKE ALL ON FUNCTION taskshed._guard() FROM PUBLIC;
COMMENT ON FUNCTION taskshed._guard() IS
'Internal. Notices rows that are restored from a dump, and drops what a subscription receives.';

CREATE FUNCTION taskshed._guard_truncate() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_guard_truncate';
REVOKE ALL ON FUNCTION taskshed._guard_truncate() FROM PUBLIC;
COMMENT ON FUNCTION taskshed._guard_truncate() IS
'Internal. Keeps the rows of a table that a subscription truncates.';

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
		EXECUTE pg_catalog.format('COMMENT ON TRIGGER superusers_only ON _taskshed.%I IS %L', name,
			'Refuses to have the table written by hand, except by superusers.');

		EXECUTE pg_catalog.format('CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE
			ON _taskshed.%I FOR EACH ROW EXECUTE FUNCTION taskshed._guard()', name);
		EXECUTE pg_catalog.format('ALTER TABLE _taskshed.%I ENABLE ALWAYS TRIGGER guard', name);
		EXECUTE pg_catalog.format('COMMENT ON TRIGGER guard ON _taskshed.%I IS %L', name,
			'Notices rows that are restored from a dump, and drops what a subscription receives.');

		EXECUTE pg_catalog.format('CREATE TRIGGER guard_truncate BEFORE TRUNCATE
			ON _taskshed.%I FOR EACH STATEMENT EXECUTE FUNCTION taskshed._guard_truncate()', name);
		EXECUTE pg_catalog.format('ALTER TABLE _taskshed.%I ENABLE ALWAYS TRIGGER guard_truncate', name);
		EXECUTE pg_catalog.format('COMMENT ON TRIGGER guard_truncate ON _taskshed.%I IS %L', name,
			'Takes the rows aside that a subscription is about to truncate.');
		EXECUTE pg_catalog.format('CREATE TRIGGER guard_truncated AFTER TRUNCATE
			ON _taskshed.%I FOR EACH STATEMENT EXECUTE FUNCTION taskshed._guard_truncate()', name);
		EXECUTE pg_catalog.format('ALTER TABLE _taskshed.%I ENABLE ALWAYS TRIGGER guard_truncated', name);
		EXECUTE pg_catalog.format('COMMENT ON TRIGGER guard_truncated ON _taskshed.%I IS %L', name,
			'Puts the rows back that a subscription has truncated.');

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
SELECT pg_catalog.pg_extension_config_dump('_taskshed.edge', '');
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
	validate boolean DEFAULT NULL,
	queue text DEFAULT NULL,
	queue_key text DEFAULT NULL,
	priority integer DEFAULT NULL,
	after text[] DEFAULT NULL,
	after_group text DEFAULT NULL,
	after_status text DEFAULT NULL,
	before text[] DEFAULT NULL,
	on_failure text DEFAULT NULL,
	notify text DEFAULT NULL,
	debounce interval DEFAULT NULL,
	debounce_max interval DEFAULT NULL,
	throttle interval DEFAULT NULL,
	spread interval DEFAULT NULL,
	except_on text DEFAULT NULL,
	settings jsonb DEFAULT NULL,
	description text DEFAULT NULL,
	keep interval DEFAULT NULL,
	options jsonb DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_add_task';
COMMENT ON FUNCTION taskshed.add_task IS
'Schedules callback to be called at run_at (default now) with the keys of kwargs as named arguments; with every, again at each interval from run_at, of 1000 years at most; with schedule, a cron expression, at each time that matches it in timezone (given as every it would be taken for an interval: */5 for five seconds). A task of the same task_id and owner is replaced unless replace_existing is false; paused and timezone left out are kept. Of a task whose times are over nothing is left, and a NOTICE says so. When a run has failed for good, on_failure, a callback or alias, is scheduled as a task of the same owner, called on_failure/ and the task_id, and told of it by those arguments that it has; empty, nothing is, whatever taskshed.on_failure says. notify is a channel that is notified of the end of each run. settings are set for the session in which it runs, as by its owner. description is shown, and never read. after names tasks of the same owner, and after_group a group, that it runs after: once they have succeeded; with after_status ended, have ended, whatever way; with failed, as soon as one has failed. If they all recur, so does it: it waits again after each run. before names tasks that wait, and are to run after this one, too. queue, queue_key, priority, debounce, debounce_max, throttle, spread, except_on and keep are for later versions: 0A000; options has the key notify_result: whether notices tell the result. Returns the task_id. Errors: 42883 unknown callback or argument, 42704 unknown task in after or before, 22023 bad option, 22001 id or description too long, 55000 one in before does not wait, 42501 not allowed, 0A000 not supported yet.';

CREATE FUNCTION taskshed.add_tasks(tasks jsonb, replace_existing boolean DEFAULT NULL)
RETURNS text[]
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_add_tasks';
COMMENT ON FUNCTION taskshed.add_tasks(jsonb, boolean) IS
'Schedules many tasks, all or none: an array of objects whose keys are the parameters of add_task. Times without a zone are those of the time zone that the task has. replace_existing is the default of the elements that do not say. NULL is no tasks, as jsonb_agg makes it of no rows. Returns the task_ids in order. Errors as add_task, naming the element.';

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
COMMENT ON TYPE taskshed.task_execution_time IS 'A task_id and the time at which that task is to run next.';
COMMENT ON COLUMN taskshed.task_execution_time.task_id IS 'The task.';
COMMENT ON COLUMN taskshed.task_execution_time.run_at IS 'When it is to run next.';

CREATE FUNCTION taskshed.update_execution_times(tasks taskshed.task_execution_time[], owner name DEFAULT NULL)
RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_update_execution_times';
COMMENT ON FUNCTION taskshed.update_execution_times(taskshed.task_execution_time[], name) IS
'Moves tasks to new times, which become the anchors of the grids of every; a failed task is scheduled again, a paused one stays paused. NULL is no tasks, as array_agg makes it of no rows. Returns how many there were.';

CREATE FUNCTION taskshed.update_execution_time(task_id text, run_at timestamptz DEFAULT NULL, owner name DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_update_execution_time';
COMMENT ON FUNCTION taskshed.update_execution_time(text, timestamptz, name) IS
'Moves a task to a new time, which becomes the anchor of the grid of every; a failed task is scheduled again, a paused one stays paused. Returns whether it was there.';

CREATE FUNCTION taskshed.update_tasks(changes jsonb, task_ids text[] DEFAULT NULL, group_id text DEFAULT NULL, owner name DEFAULT NULL)
RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_update_tasks';
COMMENT ON FUNCTION taskshed.update_tasks(jsonb, text[], text, name) IS
'Changes some points of tasks, named by task_ids or group_id, and leaves all others as they are: an object whose keys are parameters of add_task, except callback, task_id, owner, replace_existing and those that join tasks; null takes the default back. A new time, interval, schedule or time zone gives tasks new times, failed ones too. Returns how many tasks were changed; those whose times are over then, which go, are counted. Errors as add_task, naming the task.';

CREATE FUNCTION taskshed.try_task(task_id text)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_try_task';
COMMENT ON FUNCTION taskshed.try_task(text) IS
'Calls the callback of one of the current user''s own tasks now, in this session and transaction, and returns its result as text. The schedule does not change.';

CREATE FUNCTION taskshed.next_wakeup()
RETURNS timestamptz
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_next_wakeup';
COMMENT ON FUNCTION taskshed.next_wakeup() IS
'Earliest run_at of the tasks that the current user may see and that are neither paused nor failed nor waiting for others; NULL when there is none.';


CREATE TYPE taskshed.current_run AS (
	task_id text, group_id text, run_at timestamptz, attempt integer, lag interval, previous_run_at timestamptz);
COMMENT ON TYPE taskshed.current_run IS 'What a run is told of itself.';
COMMENT ON COLUMN taskshed.current_run.task_id IS 'The task.';
COMMENT ON COLUMN taskshed.current_run.group_id IS 'Group that the task belongs to, or NULL.';
COMMENT ON COLUMN taskshed.current_run.run_at IS 'The time that this run is for.';
COMMENT ON COLUMN taskshed.current_run.attempt IS 'Which attempt it is, from 1.';
COMMENT ON COLUMN taskshed.current_run.lag IS 'How late it started.';
COMMENT ON COLUMN taskshed.current_run.previous_run_at IS 'The time that the run before was for; NULL if there was none.';

CREATE TYPE taskshed.parent_result AS (
	task_id text, status text, result text, sqlstate text, message text, run_at timestamptz, finished_at timestamptz);
COMMENT ON TYPE taskshed.parent_result IS 'What a run is told of a task that it was waiting for.';
COMMENT ON COLUMN taskshed.parent_result.task_id IS 'The task.';
COMMENT ON COLUMN taskshed.parent_result.status IS 'How it has ended: succeeded, failed, timeout, cancelled, interrupted, missed or skipped.';
COMMENT ON COLUMN taskshed.parent_result.result IS 'What its callback has returned, as text; NULL for nothing, and for more than a megabyte.';
COMMENT ON COLUMN taskshed.parent_result.sqlstate IS 'SQLSTATE of its error; NULL if it has succeeded.';
COMMENT ON COLUMN taskshed.parent_result.message IS 'Message of its error; NULL if it has succeeded.';
COMMENT ON COLUMN taskshed.parent_result.run_at IS 'The time that its run was for.';
COMMENT ON COLUMN taskshed.parent_result.finished_at IS 'When it has ended.';

CREATE FUNCTION taskshed.parent_results()
RETURNS SETOF taskshed.parent_result
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_parent_results';
COMMENT ON FUNCTION taskshed.parent_results() IS
'Within a run of a task that runs after others: how those that have ended did, in the order in which they were added. No rows elsewhere.';

CREATE FUNCTION taskshed.current_task()
RETURNS taskshed.current_run
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
'A callback that runs SQL at top level, as its owner and as one message of a client would be run: one command, VACUUM and CREATE INDEX CONCURRENTLY among them, or several in one transaction, which BEGIN, COMMIT and ROLLBACK divide. What the last one returns is the result of the run. Not granted to PUBLIC. It can only be scheduled, not called. Errors: 42601 no SQL, 25001 a BEGIN without its COMMIT, 0A000 PREPARE TRANSACTION, or COPY to or from a client.';


/* Runs: to stop one, to try again, to have one more */

CREATE FUNCTION taskshed.cancel_tasks(task_ids text[] DEFAULT NULL, group_id text DEFAULT NULL, owner name DEFAULT NULL)
RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_cancel_tasks';
COMMENT ON FUNCTION taskshed.cancel_tasks(text[], text, name) IS
'Stops the runs in progress of tasks, named by task_ids or by group_id, at the commit of this transaction; a one-off task is then failed, a recurring one goes on at its next time. Later runs are not stopped. Returns how many are in progress. A transaction that has stopped any cannot be prepared (0A000).';

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

CREATE FUNCTION taskshed.run_task(task_id text, owner name DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_run_task';
COMMENT ON FUNCTION taskshed.run_task(text, name) IS
'Runs a task once in the background, paused or not; its schedule stays as it is. Returns whether it was there.';

CREATE FUNCTION taskshed.request_run(task_id text, owner name DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_request_run';
COMMENT ON FUNCTION taskshed.request_run(text, name) IS
'Has a task run once more in the background after the commit, once for many who ask, and waits for nobody: for triggers. A run in progress then is followed by another one. Returns whether it is there.';

CREATE FUNCTION taskshed.cancel_task(task_id text, owner name DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_cancel_task';
COMMENT ON FUNCTION taskshed.cancel_task(text, name) IS
'Stops the run in progress of a task at the commit of this transaction; a one-off task is then failed, a recurring one goes on at its next time. A later run is not stopped. Returns whether there is one in progress. A transaction that has stopped any cannot be prepared (0A000).';

CREATE FUNCTION taskshed.retry_task(task_id text, owner name DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_retry_task';
COMMENT ON FUNCTION taskshed.retry_task(text, name) IS
'Sends a failed task round again at once, with its attempts counted anew. Returns whether it had failed.';

CREATE FUNCTION taskshed.set_owner(new_owner name, task_ids text[] DEFAULT NULL, group_id text DEFAULT NULL, owner name DEFAULT NULL)
RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_set_owner';
COMMENT ON FUNCTION taskshed.set_owner(name, text[], text, name) IS
'Gives tasks, named by task_ids, by group_id, or all of owner''s, to another role, as which they run from then on; a run in progress goes on. Returns how many there were. Errors: 42710 new_owner has a task of that task_id, 42501 not allowed.';

CREATE FUNCTION taskshed.next_runs(
	schedule text DEFAULT NULL, timezone text DEFAULT NULL, after timestamptz DEFAULT NULL, n integer DEFAULT NULL,
	every interval DEFAULT NULL, run_at timestamptz DEFAULT NULL, task_id text DEFAULT NULL,
	owner name DEFAULT NULL, spread interval DEFAULT NULL, except_on text DEFAULT NULL)
RETURNS SETOF timestamptz
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 5 AS 'MODULE_PATHNAME', 'ts_next_runs';
COMMENT ON FUNCTION taskshed.next_runs IS
'The next n times, 5 if not given, 10,000 at most, of a cron expression, of an interval that is counted from run_at, or of a task of owner''s (default: the current user''s): those after a time, by default now; with a task, from its next run on, as if it were not paused. spread and except_on are for later versions: 0A000. Exactly one of schedule, every and task_id must be given. Errors: 22023, also for a wrong schedule; 42501 no such task, or not allowed; 42704 no such owner.';

CREATE FUNCTION taskshed.describe(schedule text, timezone text DEFAULT NULL)
RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'ts_describe';
COMMENT ON FUNCTION taskshed.describe(text, text) IS 'A cron expression in plain English. Error: 22023 if it is wrong.';

CREATE FUNCTION taskshed.activate()
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_activate';
COMMENT ON FUNCTION taskshed.activate() IS 'Lets tasks that came with a copied or restored database run here, from now on and at once if they are due. For the owner of the database, who must also own the one that was copied, or be able to SET ROLE to the owners of all tasks: 42501. After a restore tasks and aliases go to the roles that have the names of their owners; a WARNING says which names there are none for, whose tasks fail when they are due until the role is there and activate() is called again. Otherwise it does nothing where tasks run already.';


/* Moving from pg_cron; nothing in its schema is named before one of these is called. */

CREATE FUNCTION taskshed._pg_cron_jobs(
	OUT jobid bigint, OUT database text, OUT owner text, OUT task_id text, OUT schedule text, OUT timezone text,
	OUT command text, OUT active boolean, OUT problem text, OUT timeout interval, OUT mention text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
	loaded boolean;
	zone text;
	hosts text[];
	limit_of_all text;
	its_limit text;
BEGIN
	-- Anybody could have made a table of that name, with commands to be run by whoever imports them.
	IF NOT EXISTS (
		SELECT FROM pg_class c
			JOIN pg_namespace n ON n.oid = c.relnamespace
			JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
				AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
			JOIN pg_extension e ON e.oid = d.refobjid
		WHERE n.nspname = 'cron' AND c.relname = 'job' AND c.relkind = 'r' AND e.extname = 'pg_cron')
	THEN
		RAISE object_not_in_prerequisite_state USING
			MESSAGE = 'the extension pg_cron is not in this database',
			HINT = 'Its jobs are all in the database that cron.database_name names. Called there, '
				'taskshed.export_pg_cron() returns a script that schedules those of every database.';
	END IF;

	-- Settings of pg_cron are not shown to everybody: those have no row in pg_settings, and raise an error. (One
	-- that is not pg_cron's own, since it is not loaded or too old for it, has none, and raises none.)
	BEGIN
		loaded := EXISTS (SELECT FROM pg_settings s WHERE s.name = 'cron.database_name');
		IF NOT loaded THEN
			PERFORM current_setting('cron.database_name', true);
		END IF;
	EXCEPTION WHEN insufficient_privilege THEN
		loaded := true;
	END;
	IF NOT loaded THEN
		RAISE object_not_in_prerequisite_state USING
			MESSAGE = 'pg_cron is not loaded',
			DETAIL = 'Its settings say what its jobs mean.',
			HINT = 'Add it to shared_preload_libraries, and restart the server.';
	END IF;

	-- All schedules are in one zone, which versions before 1.5 have no setting for.
	BEGIN
		SELECT s.setting INTO zone FROM pg_settings s WHERE s.name = 'cron.timezone';
		IF NOT FOUND THEN
			PERFORM current_setting('cron.timezone', true);
		END IF;
		zone := coalesce(nullif(zone, ''), 'GMT');
	EXCEPTION WHEN insufficient_privilege THEN
		RAISE insufficient_privilege USING
			MESSAGE = 'permission denied to see cron.timezone, the time zone of the schedules of pg_cron',
			HINT = 'Have a superuser call this, or a member of pg_read_all_settings.';
	END;

	-- What a job's host may be if it runs in this server. (Who may not see these settings sees no row.)
	IF NOT EXISTS (SELECT FROM pg_settings s WHERE s.name = 'cron.use_background_workers' AND s.setting = 'on') THEN
		hosts := ARRAY['', 'localhost', '127.0.0.1', '::1'] ||
			ARRAY(SELECT s.setting FROM pg_settings s WHERE s.name = 'cron.host');
	END IF;

	-- What statement_timeout is where no role and no database has one; unknown if this session itself has.
	SELECT s.setting INTO limit_of_all FROM pg_settings s
	WHERE s.name = 'statement_timeout' AND s.source IN ('configuration file', 'command line');

	-- (to_jsonb: jobname and active are not there in old versions.)
	FOR jobid, database, owner, task_id, schedule, timezone, command, active, problem, its_limit, mention IN EXECUTE $query$
		SELECT j.jobid, j.database, j.username, n.task_id, j.schedule, $1, j.command,
			coalesce((to_jsonb(j)->>'active')::boolean, true),
			CASE WHEN NOT (j.nodename = ANY ($2) OR j.nodename ~ '^[/@]') OR j.nodeport::text <> current_setting('port')
					AND $2 IS NOT NULL
				THEN format('the job runs on another server, %s port %s', j.nodename, j.nodeport)
				-- It passes over what follows the fifth field and # in a field; some versions over a step, too.
				WHEN j.schedule ~ '^\s*(\S+\s+){5}\S|#|(^|[\s,])\w+/'
				THEN 'pg_cron does not read the whole schedule'
				WHEN row_number() OVER (PARTITION BY j.database, j.username, n.task_id ORDER BY j.jobid) > 1
				THEN 'another job has this name' END,
			-- As the server looks for it: of the role in the database, of the role, of the database, of all.
			(SELECT substr(c.setting, length('statement_timeout=') + 1)
			FROM pg_db_role_setting s, unnest(s.setconfig) AS c (setting)
			WHERE c.setting LIKE 'statement\_timeout=%'
				AND (s.setrole = 0 OR s.setrole = (SELECT r.oid FROM pg_roles r WHERE r.rolname = j.username))
				AND (s.setdatabase = 0 OR s.setdatabase = (SELECT d.oid FROM pg_database d WHERE d.datname = j.database))
			ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1),
			'cron.' || lower((regexp_match(j.command, '(?:\m|")cron"?\s*\.\s*"?'
				'(job_run_details|job|schedule_in_database|schedule|unschedule|alter_job)\M', 'i'))[1])
		FROM cron.job j,
			LATERAL (SELECT coalesce(nullif(to_jsonb(j)->>'jobname', ''), 'pg_cron_' || j.jobid)) AS n (task_id)
		ORDER BY j.database, j.jobid
		$query$ USING zone, hosts
	LOOP
		-- The server reads its own settings best; what is set for that is rolled back, for the caller to keep
		-- what it has. A command that sets its own limit has that one, here as there.
		timeout := NULL;
		its_limit := coalesce(its_limit, limit_of_all);
		IF its_limit IS NOT NULL AND command !~* '\mstatement_timeout\M' THEN
			BEGIN
				PERFORM set_config('statement_timeout', its_limit, true);
				timeout := nullif(current_setting('statement_timeout')::interval, '0');
				RAISE SQLSTATE 'TS000';
			EXCEPTION WHEN SQLSTATE 'TS000' THEN
				NULL;
			END;
		END IF;
		RETURN NEXT;
	END LOOP;
END $$;
COMMENT ON FUNCTION taskshed._pg_cron_jobs() IS
'Internal. The jobs of pg_cron, of all databases, that the current user may see, as tasks. problem: why one cannot be a task here; timeout: the statement_timeout that bounds it there, NULL without; mention: what of pg_cron its command uses, or NULL.';

CREATE FUNCTION taskshed.import_pg_cron(
	deactivate boolean DEFAULT NULL,
	OUT jobid bigint, OUT owner name, OUT task_id text, OUT schedule text,
	OUT result text, OUT message text, OUT hint text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
	job record;
	task record;
	role oid;
	differs boolean;
	next_run timestamptz;
	n integer;
	alter_job regprocedure := to_regprocedure('cron.alter_job(bigint, text, text, text, text, boolean)');
	can_alter_job boolean := has_function_privilege(alter_job, 'EXECUTE') AND EXISTS (
		SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
		WHERE d.classid = 'pg_proc'::regclass AND d.objid = alter_job AND d.deptype = 'e'
			AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'pg_cron');
BEGIN
	FOR job IN SELECT * FROM taskshed._pg_cron_jobs() j WHERE j.database = current_database() LOOP
		jobid := job.jobid;
		owner := job.owner;
		task_id := job.task_id;
		schedule := job.schedule;
		message := NULL;
		hint := NULL;
		differs := false;

		-- One that cannot be imported leaves no trace and does not keep the others from being.
		BEGIN
			SELECT r.oid INTO role FROM pg_roles r WHERE r.rolname = job.owner;
			IF NOT FOUND THEN
				RAISE undefined_object USING MESSAGE = format('role "%s" does not exist', job.owner);
			ELSIF job.problem IS NOT NULL THEN
				RAISE object_not_in_prerequisite_state USING MESSAGE = job.problem;
			-- (Whoever lacks this does not see the role's tasks, and could overwrite one.)
			ELSIF NOT pg_has_role(role, 'USAGE') THEN
				RAISE insufficient_privilege USING
					MESSAGE = format('permission denied for tasks of role "%s"', job.owner);
			ELSIF NOT (has_schema_privilege(role, 'taskshed', 'USAGE') AND
					has_function_privilege(role, 'taskshed.execute(text)', 'EXECUTE')) THEN
				RAISE insufficient_privilege USING
					MESSAGE = format('role "%s" may not run commands as tasks', job.owner),
					HINT = format('GRANT USAGE ON SCHEMA taskshed TO %1$I; GRANT EXECUTE ON PROCEDURE taskshed.execute TO %1$I;',
						job.owner);
			END IF;

			SELECT * INTO task FROM taskshed.tasks t WHERE t.owner = job.owner AND t.task_id = job.task_id;
			IF FOUND AND (task.callback, task.group_id) IS DISTINCT FROM ('taskshed.execute', 'pg_cron') THEN
				RAISE duplicate_object USING
					MESSAGE = format('role "%s" already has a task "%s" that was not imported', job.owner, job.task_id);
			ELSIF NOT FOUND THEN
				result := 'imported';
			ELSE
				result := 'unchanged';
				differs := (task.schedule, task.kwargs) IS DISTINCT FROM
					(job.schedule, jsonb_build_object('command', job.command));
			END IF;

			IF result = 'imported' THEN
				PERFORM taskshed.add_task('taskshed.execute',
					schedule => job.schedule, timezone => job.timezone, timeout => job.timeout,
					kwargs => jsonb_build_object('command', job.command),
					task_id => job.task_id, group_id => 'pg_cron', owner => job.owner::name,
					paused => true, replace_existing => false);
			END IF;
			IF NOT job.active THEN
				message := 'the job is not active';
			ELSIF differs THEN
				message := 'the task has another schedule or command';
			END IF;
			IF job.mention IS NOT NULL THEN
				message := concat_ws('; ', message, format('the command uses %s, which knows nothing of tasks', job.mention));
				hint := 'Tasks are in taskshed.tasks, and what has run is in taskshed.runs, which is kept in bounds by itself.';
			END IF;

			-- One that cannot be switched off is imported all the same.
			IF deactivate AND job.active THEN
				BEGIN
					IF differs THEN
						RAISE object_not_in_prerequisite_state USING
							MESSAGE = 'the task has another schedule or command',
							HINT = 'Remove the task to have the job imported anew, or switch both over yourself.';
					ELSIF can_alter_job THEN
						EXECUTE 'SELECT cron.alter_job($1, NULL::text, NULL::text, NULL::text, NULL::text, false)'
							USING job.jobid;
					ELSE
						EXECUTE 'UPDATE cron.job j SET active = false WHERE j.jobid = $1' USING job.jobid;
						GET DIAGNOSTICS n = ROW_COUNT;
						IF n = 0 THEN
							RAISE object_not_in_prerequisite_state USING MESSAGE = 'it is gone';
						END IF;
					END IF;

					SELECT * INTO STRICT task FROM taskshed.tasks t
					WHERE t.owner = job.owner AND t.task_id = job.task_id;
					IF task.paused_at IS NOT NULL THEN
						-- What has come due since it was imported was done by pg_cron.
						IF task.run_at <= clock_timestamp() THEN
							SELECT * INTO STRICT next_run
							FROM taskshed.next_runs(schedule => task.schedule, timezone => task.timezone, n => 1);
							PERFORM taskshed.update_execution_time(task.task_id, next_run, task.owner);
						END IF;
						PERFORM taskshed.resume_task(task.task_id, task.owner);
					END IF;
					result := 'switched';
				EXCEPTION WHEN OTHERS THEN
					GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
					message := 'the job stays active: ' || message;
				END;
			END IF;
		EXCEPTION WHEN OTHERS THEN
			result := 'refused';
			GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
		END;
		hint := nullif(hint, '');
		RETURN NEXT;
	END LOOP;
END $$;
COMMENT ON FUNCTION taskshed.import_pg_cron(boolean) IS
'Brings the jobs that pg_cron has for the current database, and that the current user may see, as paused tasks of their owners; with deactivate, switches each active job off and its task on. The statement_timeout of a job becomes the timeout of the task. A row for each job: result is imported, unchanged, switched, or refused with the reason in message, which also tells of a command that uses tables or functions of pg_cron. Can be called again. Errors: 55000 no pg_cron here, 42501 not allowed.';

CREATE FUNCTION taskshed.export_pg_cron() RETURNS SETOF text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
	job record;
	owner record;
	current text;
	connection text;
	settings CONSTANT text := concat_ws(E'\n', '\encoding ' || pg_client_encoding(), 'SET search_path = pg_catalog;');
	prologue CONSTANT text := concat_ws(E'\n', settings, '\set has_taskshed false',
		'SELECT count(*) > 0 AS has_taskshed FROM pg_extension WHERE extname = ''taskshed'' \gset',
		'\if :has_taskshed');
	epilogue CONSTANT text := concat_ws(E'\n', '\else',
		'\warn :DBNAME: no extension taskshed here, so nothing was scheduled', '\endif',
		'\else', '\warn :database: no such database to connect to, so nothing was scheduled', '\endif');
BEGIN
	RETURN NEXT '-- Schedules the jobs of pg_cron as tasks of taskshed, all of them paused: a script for psql -f.';
	RETURN NEXT '-- What cannot be scheduled is reported, and the rest goes on. Tasks that are there stay as they are.';
	FOR job IN SELECT * FROM taskshed._pg_cron_jobs() LOOP
		IF job.database IS DISTINCT FROM current THEN
			RETURN NEXT CASE WHEN current IS NULL THEN settings ELSE epilogue END;
			current := job.database;

			-- The name is quoted for a connection string, that as an identifier, and that for psql's commands.
			connection := regexp_replace(job.database, E'[\\\\'']', E'\\\\\\&', 'g');
			connection := format('"dbname=''%s''"', replace(connection, '"', '""'));
			connection := regexp_replace(connection, E'[\\\\'']', E'\\\\\\&', 'g');
			connection := replace(replace(connection, E'\n', '\n'), E'\r', '\r');
			RETURN NEXT '';

			-- (psql ends a script where it cannot connect.)
			RETURN NEXT '\set can_connect false';
			RETURN NEXT format('SELECT %1$L AS database, EXISTS (SELECT FROM pg_database WHERE datname = %1$L AND '
				'datallowconn AND has_database_privilege(oid, ''CONNECT'')) AS can_connect \gset', job.database);
			RETURN NEXT '\if :can_connect';
			RETURN NEXT E'\\connect -reuse-previous=on \'' || connection || '''';
			RETURN NEXT prologue;
			FOR owner IN SELECT DISTINCT j.owner AS name FROM taskshed._pg_cron_jobs() j
				WHERE j.database = current AND NOT EXISTS
					(SELECT FROM pg_roles r WHERE r.rolname = j.owner AND r.rolsuper)
				ORDER BY 1
			LOOP
				RETURN NEXT translate(format('-- needed: GRANT USAGE ON SCHEMA taskshed TO %1$I; '
					'GRANT EXECUTE ON PROCEDURE taskshed.execute TO %1$I;', owner.name), E'\n\r', '  ');
			END LOOP;
		END IF;

		RETURN NEXT translate(format('-- job %s%s', job.jobid,
			CASE WHEN job.problem IS NOT NULL THEN ' is left out: ' || job.problem
				WHEN NOT job.active THEN ', which is not active' ELSE '' END), E'\n\r', '  ');
		IF job.problem IS NULL AND job.mention IS NOT NULL THEN
			RETURN NEXT format('-- its command uses %s, which knows nothing of tasks: see taskshed.tasks and taskshed.runs',
				job.mention);
		END IF;
		IF job.problem IS NULL THEN
			RETURN NEXT format('SELECT taskshed.add_task(''taskshed.execute'', schedule => %L, timezone => %L, '
				'timeout => %L, kwargs => jsonb_build_object(''command'', %L), task_id => %L, group_id => ''pg_cron'', '
				'owner => %L, paused => true, replace_existing => false);',
				job.schedule, job.timezone, job.timeout, job.command, job.task_id, job.owner);
		END IF;
	END LOOP;
	IF current IS NOT NULL THEN
		RETURN NEXT epilogue;
	END IF;
END $$;
COMMENT ON FUNCTION taskshed.export_pg_cron() IS
'A script for psql that schedules the jobs of pg_cron, of all databases, as paused tasks of their owners in these databases; of the jobs that the current user may see. Errors: 55000 no pg_cron here, 42501 not allowed.';


/* Views */

CREATE FUNCTION taskshed._running(OUT id bigint, OUT running_since timestamptz, OUT worker_pid integer)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 4 AS 'MODULE_PATHNAME', 'ts_running';
COMMENT ON FUNCTION taskshed._running() IS
'Internal. The runs in progress in this database that the current user may see.';

CREATE FUNCTION taskshed._held() RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_held';
COMMENT ON FUNCTION taskshed._held() IS
'Internal. Whether the tasks of this database came with a copy and wait for activate().';

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
	CASE WHEN a.waiting_since IS NULL OR a.failed_at IS NOT NULL THEN coalesce(a.resume_at, a.run_at) END AS run_at,
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
		WHEN taskshed._held() THEN 'held'
		WHEN a.waiting_since IS NOT NULL THEN 'waiting'
		WHEN coalesce(a.resume_at, a.run_at) <= pg_catalog.clock_timestamp() THEN 'due'
		ELSE 'scheduled' END AS state,
	a.paused_at,
	a.attempt,
	x.running_since,
	x.worker_pid,
	a.last_run_at,
	a.last_status,
	a.last_sqlstate,
	CASE WHEN pg_catalog.pg_has_role(t.owner, 'USAGE') THEN a.last_error END AS last_error,
	greatest(a.run_count, 0) AS run_count,
	a.failures_in_row,
	t.created_at,
	t.description,
	t.on_failure,
	t.notify,
	CASE WHEN pg_catalog.pg_has_role(t.owner, 'USAGE') THEN t.settings END AS settings,
	t.options,
	CASE WHEN a.follows THEN ARRAY(SELECT e.task_id FROM _taskshed.edge e WHERE e.child = t.id
		ORDER BY e.parent LIMIT 20) END AS after,
	t.after_status,
	CASE WHEN a.follows AND a.waiting_since IS NOT NULL AND a.failed_at IS NULL
		THEN ARRAY(SELECT e.task_id FROM _taskshed.edge e WHERE e.child = t.id
			AND (e.done_at IS NULL OR e.status <> 'succeeded' AND coalesce(t.after_status, 'succeeded') = 'succeeded'
				OR t.run_type = 'recurring' AND EXISTS (SELECT FROM _taskshed.alarm p WHERE p.id = e.parent
					AND p.failed_at IS NULL AND (p.resume_at IS NOT NULL OR p.waiting_since IS NULL
						AND p.scheduled_at <= pg_catalog.clock_timestamp() AND p.scheduled_at > e.run_at)))
		ORDER BY e.parent LIMIT 20) END AS waiting_for
FROM _taskshed.task t
	JOIN _taskshed.alarm a ON a.id = t.id
	LEFT JOIN taskshed._running() x ON x.id = t.id
WHERE pg_catalog.pg_has_role(t.owner, 'USAGE')
	OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE');
COMMENT ON VIEW _taskshed.task_details IS 'Internal. The view tasks with the internal keys.';
COMMENT ON COLUMN _taskshed.task_details.id IS 'Internal key of the task.';
COMMENT ON COLUMN _taskshed.task_details.owner_oid IS 'OID of the role that the task runs as.';
COMMENT ON COLUMN _taskshed.task_details.owner IS 'Role that the task runs as; the OID that it had, if it was dropped.';
COMMENT ON COLUMN _taskshed.task_details.task_id IS 'The task''s name, unique for its owner.';
COMMENT ON COLUMN _taskshed.task_details.group_id IS 'Group that the task belongs to, or NULL.';
COMMENT ON COLUMN _taskshed.task_details.kwargs IS 'Named arguments of the callback, a JSON object; NULL for those who may not see it.';
COMMENT ON COLUMN _taskshed.task_details.run_at IS 'Time of the next run; of the run that failed, for a failed task; NULL while the task waits for others.';
COMMENT ON COLUMN _taskshed.task_details.state IS 'running, failed, paused, held, waiting, due or scheduled: the first that fits. Held: it came with a copy of a database, see activate(). Waiting: for the tasks in waiting_for, or to be asked for by request_run().';
COMMENT ON COLUMN _taskshed.task_details.after IS 'Tasks that it runs after, the first 20 of them; NULL if there are none.';
COMMENT ON COLUMN _taskshed.task_details.waiting_for IS 'Those of them that it waits for now, the first 20; for a task that recurs, also those that have ended and are due again, or running. NULL while it does not wait.';
COMMENT ON COLUMN _taskshed.task_details.running_since IS 'Start of the run in progress.';
COMMENT ON COLUMN _taskshed.task_details.worker_pid IS 'Process of the run in progress.';
COMMENT ON COLUMN _taskshed.task_details.settings IS 'Settings of the session in which the task runs; NULL for those who may not see them.';
COMMENT ON COLUMN _taskshed.task_details.last_sqlstate IS 'SQLSTATE of the last run''s error.';
COMMENT ON COLUMN _taskshed.task_details.last_error IS 'Message of the last run''s error; NULL for those who may not see it.';
COMMENT ON COLUMN _taskshed.task_details.run_count IS 'Runs that have ended, failed ones included.';

CREATE VIEW taskshed.tasks AS
SELECT owner, task_id, group_id, callback, kwargs, run_type, run_at, every, schedule, timezone, until,
	max_runs, catch_up, start_within, timeout, max_attempts, retry_delay, retry_backoff, retry_max_delay,
	history, state, paused_at, attempt, running_since, worker_pid, last_run_at, last_status,
	last_sqlstate, last_error, run_count, failures_in_row, created_at, description,
	on_failure, notify, settings, options, after, after_status, waiting_for
FROM _taskshed.task_details;
COMMENT ON VIEW taskshed.tasks IS 'The tasks that the reader may see, with when they run and how the last run went.';

-- What a column is, is said once: one of task_details without a comment of its own has that of the tables, and one
-- of tasks that of task_details.
DO $$
DECLARE
	col record;
	pair text[];
BEGIN
	FOREACH pair SLICE 1 IN ARRAY '{{_taskshed.alarm,_taskshed.task_details},{_taskshed.task,_taskshed.task_details},
		{_taskshed.task_details,taskshed.tasks}}'::text[]
	LOOP
		FOR col IN
			SELECT v.attname, pg_catalog.col_description(t.attrelid, t.attnum) AS comment
			FROM pg_catalog.pg_attribute v JOIN pg_catalog.pg_attribute t ON t.attname = v.attname
			WHERE t.attrelid = pair[1]::pg_catalog.regclass AND v.attrelid = pair[2]::pg_catalog.regclass
				AND v.attnum > 0 AND pg_catalog.col_description(v.attrelid, v.attnum) IS NULL
		LOOP
			EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', pair[2], col.attname, col.comment);
		END LOOP;
	END LOOP;
END $$;

/* What the view overview shows has to fit a terminal. */

CREATE FUNCTION taskshed._fit(value text, width integer DEFAULT NULL) RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'ts_fit';
COMMENT ON FUNCTION taskshed._fit(text, integer) IS
'Internal. A text on one line, cut to so many columns of the client''s terminal.';

CREATE FUNCTION taskshed._short_time(value timestamptz) RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'ts_short_time';
COMMENT ON FUNCTION taskshed._short_time(timestamptz) IS
'Internal. A time in the session''s time zone, to the second, in 19 columns at most.';

/*
 * For the eyes: what psql prints of it has 120 columns, which are those here and
 * 17 between them.  It shows whatever the view tasks does, but is a query of its
 * own: by the order of an index the first rows of many come without a sort.
 */
CREATE VIEW taskshed.overview WITH (security_barrier) AS
SELECT taskshed._fit(coalesce((SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid = t.owner)::text, t.owner::text),
		10) AS owner,
	taskshed._fit(t.task_id, 24) AS task_id,
	CASE WHEN a.failed_at IS NULL AND a.paused_at IS NULL AND a.waiting_since IS NULL AND NOT taskshed._held()
		THEN taskshed._short_time(coalesce(a.resume_at, a.run_at)) END AS next_run,
	CASE WHEN x.id IS NOT NULL THEN 'running'
		WHEN a.failed_at IS NOT NULL THEN 'failed'
		WHEN a.paused_at IS NOT NULL THEN 'paused'
		WHEN taskshed._held() THEN 'held'
		WHEN a.waiting_since IS NOT NULL THEN 'waiting'
		WHEN coalesce(a.resume_at, a.run_at) <= pg_catalog.clock_timestamp() THEN 'due'
		ELSE 'scheduled' END AS state,
	taskshed._short_time(a.last_run_at) AS last_run,
	CASE WHEN pg_catalog.pg_has_role(t.owner, 'USAGE') THEN taskshed._fit(a.last_error, 22) END AS last_error
FROM _taskshed.task t
	JOIN _taskshed.alarm a ON a.id = t.id
	LEFT JOIN taskshed._running() x ON x.id = t.id
WHERE pg_catalog.pg_has_role(t.owner, 'USAGE')
	OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')
ORDER BY t.owner, t.task_id;
COMMENT ON VIEW taskshed.overview IS 'The tasks that the reader may see, for people: psql prints no line of more than 120 columns. Long names and messages are cut, and end with an ellipsis; the view tasks has all.';
COMMENT ON COLUMN taskshed.overview.owner IS 'Role that the task runs as; the OID that it had, if it was dropped.';
COMMENT ON COLUMN taskshed.overview.task_id IS 'The task''s name, unique for its owner.';
COMMENT ON COLUMN taskshed.overview.next_run IS 'When it runs next by itself, in the session''s time zone; the time of the run in progress while it is running. NULL for a task that is failed, paused, held or waiting.';
COMMENT ON COLUMN taskshed.overview.state IS 'running, failed, paused, held, waiting, due or scheduled: the first that fits.';
COMMENT ON COLUMN taskshed.overview.last_run IS 'When the last run started, in the session''s time zone; NULL if there was none.';
COMMENT ON COLUMN taskshed.overview.last_error IS 'Message of the last run''s error; NULL after a run that succeeded, and for those who may not see it.';

/* The progress of what runs after others: of a batch, for one. */
CREATE VIEW taskshed.followers WITH (security_barrier) AS
SELECT coalesce((SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid = t.owner), t.owner::text::name) AS owner,
	t.task_id,
	e.parents,
	e.ended,
	e.succeeded,
	e.ended - e.succeeded - e.skipped AS failed,
	e.parents - e.ended AS "left"
FROM _taskshed.task t
	JOIN _taskshed.alarm a ON a.id = t.id
	CROSS JOIN LATERAL (SELECT count(*) AS parents,
			count(done_at) AS ended,
			count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
			count(*) FILTER (WHERE status = 'skipped') AS skipped
		FROM _taskshed.edge WHERE child = t.id) e
WHERE a.follows
	AND (pg_catalog.pg_has_role(t.owner, 'USAGE')
		OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'));
COMMENT ON VIEW taskshed.followers IS 'The tasks that run after others, as far as the reader may see them, with what has become of these: the progress of a batch.';
COMMENT ON COLUMN taskshed.followers.owner IS 'Role that the task runs as; the OID that it had, if it was dropped.';
COMMENT ON COLUMN taskshed.followers.task_id IS 'The task that runs after the others.';
COMMENT ON COLUMN taskshed.followers.parents IS 'How many tasks it runs after.';
COMMENT ON COLUMN taskshed.followers.ended IS 'How many of them have ended, either way; of a task that runs again and again, since its last run.';
COMMENT ON COLUMN taskshed.followers.succeeded IS 'How many of them have succeeded.';
COMMENT ON COLUMN taskshed.followers.failed IS 'How many of them have failed, timed out, or were cancelled, interrupted or missed.';
COMMENT ON COLUMN taskshed.followers."left" IS 'How many of them have not ended yet.';

CREATE VIEW taskshed.status AS
SELECT d.datname AS database, s.state, s.scheduler_pid, s.workers, s.running, s.due, s.oldest_due, s.failed,
	s.next_wakeup, s.runs_ok, s.runs_failed, s.last_failure_at, s.message
FROM taskshed._status() s JOIN pg_catalog.pg_database d ON d.oid = s.database;
COMMENT ON VIEW taskshed.status IS 'How taskshed does in each database: a row for the current one, and for those who have pg_read_all_stats a row for each that taskshed serves. To others it shows whether tasks run, and counts of the tasks that they may see. Counts start again when the server does.';
COMMENT ON COLUMN taskshed.status.database IS 'The database.';
COMMENT ON COLUMN taskshed.status.state IS 'active: tasks run; asleep: there is nothing to do and the scheduler is away until just before next_wakeup; starting: the scheduler is about to; disabled: taskshed.enabled is off; held: tasks came with a copy of a database and wait for activate(); stopped: the extension or its tables do not fit the library; standby, template, not loaded: nothing runs in a standby, in a template, or without the library, see message.';
COMMENT ON COLUMN taskshed.status.scheduler_pid IS 'Process of the scheduler; NULL when it is away.';
COMMENT ON COLUMN taskshed.status.workers IS 'Worker processes of the roles whose tasks the reader may see.';
COMMENT ON COLUMN taskshed.status.running IS 'Runs in progress of the tasks that the reader may see.';
COMMENT ON COLUMN taskshed.status.due IS 'Tasks that the reader may see whose time has come and that have not started; for those who see all, as far as the scheduler has read ahead.';
COMMENT ON COLUMN taskshed.status.oldest_due IS 'Earliest run_at among them.';
COMMENT ON COLUMN taskshed.status.failed IS 'Tasks in state failed that the reader may see.';
COMMENT ON COLUMN taskshed.status.next_wakeup IS 'When the scheduler will wake by itself for a task; for those who do not see all, the earliest run_at to come of the tasks that they may see.';
COMMENT ON COLUMN taskshed.status.runs_ok IS 'Runs that succeeded since the server started; NULL for those who do not have pg_read_all_stats.';
COMMENT ON COLUMN taskshed.status.runs_failed IS 'Runs that failed since the server started; NULL for those who do not have pg_read_all_stats.';
COMMENT ON COLUMN taskshed.status.last_failure_at IS 'When the last run failed; NULL for those who do not have pg_read_all_stats.';
COMMENT ON COLUMN taskshed.status.message IS 'What keeps tasks from running, if anything does; NULL for those who do not have pg_read_all_stats, unless the state is standby, template or not loaded.';

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
	r.worker_pid,
	r.by_hand IS TRUE AS by_hand
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
COMMENT ON COLUMN taskshed.runs.run_id IS 'Number of the run. Numbers do not rise with time: order by finished_at.';
COMMENT ON COLUMN taskshed.runs.owner IS 'Role that the task ran as; the OID that it had, if it was dropped.';
COMMENT ON COLUMN taskshed.runs.task_id IS 'The task.';
COMMENT ON COLUMN taskshed.runs.group_id IS 'Group that the task belonged to.';
COMMENT ON COLUMN taskshed.runs.callback IS 'What was called.';
COMMENT ON COLUMN taskshed.runs.scheduled_at IS 'The time that the run was for.';
COMMENT ON COLUMN taskshed.runs.started_at IS 'When it started.';
COMMENT ON COLUMN taskshed.runs.finished_at IS 'When it ended.';
COMMENT ON COLUMN taskshed.runs.status IS 'succeeded, failed, timeout, cancelled, interrupted, missed or skipped.';
COMMENT ON COLUMN taskshed.runs.attempt IS 'Which attempt it was.';
COMMENT ON COLUMN taskshed.runs.result IS 'What the callback returned, as text.';
COMMENT ON COLUMN taskshed.runs.sqlstate IS 'SQLSTATE of the error.';
COMMENT ON COLUMN taskshed.runs.message IS 'Message of the error.';
COMMENT ON COLUMN taskshed.runs.detail IS 'Detail of the error.';
COMMENT ON COLUMN taskshed.runs.hint IS 'Hint of the error.';
COMMENT ON COLUMN taskshed.runs.context IS 'Context of the error.';
COMMENT ON COLUMN taskshed.runs.worker_pid IS 'Process that ran it.';
COMMENT ON COLUMN taskshed.runs.by_hand IS 'Whether it was a run beside the schedule that run_tasks asked for.';

CREATE VIEW taskshed.callbacks WITH (security_barrier) AS
SELECT coalesce((SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid = c.owner), c.owner::text::name) AS owner,
	c.name, c.callback
FROM _taskshed.callback c
WHERE pg_catalog.pg_has_role(c.owner, 'USAGE')
	OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE');
COMMENT ON VIEW taskshed.callbacks IS 'The aliases of callbacks that the reader may see.';
COMMENT ON COLUMN taskshed.callbacks.owner IS 'Role whose tasks can use the alias; the OID that it had, if it was dropped.';
COMMENT ON COLUMN taskshed.callbacks.name IS 'The alias.';
COMMENT ON COLUMN taskshed.callbacks.callback IS 'Schema-qualified name of the function or procedure that it stands for.';

-- Who writes to a view is told what to call instead.
CREATE FUNCTION taskshed._cannot_write_view() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_cannot_write_view';
REVOKE ALL ON FUNCTION taskshed._cannot_write_view() FROM PUBLIC;
COMMENT ON FUNCTION taskshed._cannot_write_view() IS
'Internal. Refuses to have a view of the extension written to, and says what to call instead: 55000.';

DO $$
DECLARE
	view text;
BEGIN
	FOR view IN SELECT pg_catalog.format('%I.%I', nspname, relname)
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname IN ('taskshed', '_taskshed') AND c.relkind = 'v'
	LOOP
		EXECUTE pg_catalog.format('CREATE TRIGGER cannot_write INSTEAD OF INSERT OR UPDATE OR DELETE
			ON %s FOR EACH ROW EXECUTE FUNCTION taskshed._cannot_write_view()', view);
		EXECUTE pg_catalog.format('COMMENT ON TRIGGER cannot_write ON %s IS %L', view,
			'Refuses to have the view written to, and says what to call instead.');
	END LOOP;
END $$;

CREATE FUNCTION taskshed.fetch_tasks(task_ids text[] DEFAULT NULL, group_id text DEFAULT NULL, owner name DEFAULT NULL)
RETURNS SETOF taskshed.tasks
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_fetch_tasks';
COMMENT ON FUNCTION taskshed.fetch_tasks(text[], text, name) IS
'The tasks named by task_ids or by group_id, or all of owner''s (default: the current user''s), by run_at and task_id.';

CREATE FUNCTION taskshed.fetch_task(task_id text, owner name DEFAULT NULL)
RETURNS taskshed.tasks
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_fetch_task';
COMMENT ON FUNCTION taskshed.fetch_task(text, name) IS 'The task, or NULL when there is none.';

-- What these two query.  (Its body was parsed here: to call it, nobody needs to name what is in it.)
CREATE FUNCTION taskshed._details(owner_oid oid) RETURNS SETOF _taskshed.task_details
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
	SELECT * FROM _taskshed.task_details d WHERE d.owner_oid = $1;
END;
COMMENT ON FUNCTION taskshed._details(oid) IS
'Internal. The tasks of a role that the current user may see, with the internal keys.';


/* Asks for a scheduler in this database when the transaction commits. */
CREATE FUNCTION taskshed._start_scheduler() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_start_scheduler';
REVOKE ALL ON FUNCTION taskshed._start_scheduler() FROM PUBLIC;
COMMENT ON FUNCTION taskshed._start_scheduler() IS
'Internal. Asks for a scheduler in this database when the transaction commits.';


/*
 * Who may do what is said here as a whole.  Default privileges of the role that
 * installs the extension may have granted more than is meant, and who can write
 * the tables can have anything run as anybody; or less, as where functions are
 * not for PUBLIC.
 */
DO $$
DECLARE
	role text;
	function text;
	ours CONSTANT oid[] := ARRAY['taskshed'::pg_catalog.regnamespace, '_taskshed'::pg_catalog.regnamespace];
BEGIN
	FOR role IN
		SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END
		FROM (SELECT relacl FROM pg_catalog.pg_class WHERE relnamespace = ANY (ours)
			UNION ALL SELECT nspacl FROM pg_catalog.pg_namespace WHERE oid = ANY (ours)
			UNION ALL SELECT proacl FROM pg_catalog.pg_proc WHERE pronamespace = ANY (ours)) AS o (acl),
			pg_catalog.aclexplode(o.acl) AS a
		WHERE a.grantee <> a.grantor
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON ALL TABLES IN SCHEMA taskshed, _taskshed FROM %s', role);
		EXECUTE pg_catalog.format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA taskshed, _taskshed FROM %s', role);
		EXECUTE pg_catalog.format('REVOKE ALL ON ALL ROUTINES IN SCHEMA taskshed, _taskshed FROM %s', role);
		EXECUTE pg_catalog.format('REVOKE CREATE ON SCHEMA taskshed FROM %s', role);
		EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA _taskshed FROM %s', role);
	END LOOP;

	-- What begins with _ is internal; these are what views and functions of ours call as their reader.
	FOR function IN
		SELECT oid::pg_catalog.regprocedure FROM pg_catalog.pg_proc
		WHERE pronamespace = 'taskshed'::pg_catalog.regnamespace AND prokind = 'f' AND
			(proname !~ '^_' OR proname IN ('_details', '_fit', '_held', '_pg_cron_jobs', '_running', '_short_time', '_status'))
	LOOP
		EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', function);
	END LOOP;
END $$;

GRANT SELECT ON _taskshed.task_details, taskshed.tasks, taskshed.overview, taskshed.followers, taskshed.status, taskshed.runs, taskshed.callbacks TO PUBLIC;
GRANT USAGE ON TYPE taskshed.task_execution_time, taskshed.current_run, taskshed.parent_result TO PUBLIC;

-- The owner of the database can dump it, and let others in.
GRANT USAGE ON SCHEMA taskshed TO pg_database_owner WITH GRANT OPTION;
GRANT USAGE ON SCHEMA _taskshed TO pg_database_owner;
GRANT SELECT ON SEQUENCE _taskshed.task_seq TO pg_database_owner;
GRANT SELECT ON _taskshed.task, _taskshed.alarm, _taskshed.edge, _taskshed.callback TO pg_database_owner;


SELECT taskshed._start_scheduler();
