/* taskshed 0.9 to 1.0 */

\echo Use "ALTER EXTENSION taskshed UPDATE TO '1.0'" to load this file. \quit

-- (The test puts here what the script of 1.0 has: a function, view, type or table of a name, or the columns that a
-- table of 0.9 lacks.)

-- What depends on the columns of the view tasks is made anew.
DROP FUNCTION taskshed.fetch_task(text, name);
DROP FUNCTION taskshed.fetch_tasks(text[], text, name);
DROP VIEW taskshed.tasks;
DROP VIEW _taskshed.task_details;

-- new columns of task
-- new columns of alarm
CREATE INDEX alarm_failed ON _taskshed.alarm (failed_at) WHERE failed_at IS NOT NULL;
DROP INDEX _taskshed.alarm_queue;
CREATE INDEX alarm_queue ON _taskshed.alarm (owner, run_at, id)
	WHERE paused_at IS NULL AND failed_at IS NULL AND waiting_since IS NULL OR resume_at IS NOT NULL;

DO $$
BEGIN
	FOR part IN 0..7 LOOP
		EXECUTE pg_catalog.format('ALTER TABLE _taskshed.run_%s ADD COLUMN by_hand boolean', part);
	END LOOP;
END $$;

CREATE TABLE _taskshed.home (
	database oid NOT NULL,
	restored boolean NOT NULL
) USING heap;

ALTER TABLE _taskshed.task ADD CONSTRAINT either_times CHECK (every IS NULL OR schedule IS NULL);
ALTER TABLE _taskshed.task ADD CONSTRAINT after_status_values CHECK (after_status IN ('succeeded', 'ended', 'failed'));

-- The tasks that there are belong here.
INSERT INTO _taskshed.home
SELECT oid, false FROM pg_catalog.pg_database
WHERE datname = pg_catalog.current_database()
	AND (EXISTS (SELECT FROM _taskshed.task) OR EXISTS (SELECT FROM _taskshed.callback));
ALTER TABLE _taskshed.home REPLICA IDENTITY FULL;
CREATE TRIGGER superusers_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON _taskshed.home
FOR EACH STATEMENT EXECUTE FUNCTION taskshed._superusers_only();
ALTER TABLE _taskshed.home ENABLE ALWAYS TRIGGER superusers_only;

-- as in 1.0: edge
CREATE INDEX edge_parent ON _taskshed.edge (parent, child);
CREATE TRIGGER superusers_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON _taskshed.edge
FOR EACH STATEMENT EXECUTE FUNCTION taskshed._superusers_only();
ALTER TABLE _taskshed.edge ENABLE ALWAYS TRIGGER superusers_only;
SELECT pg_catalog.pg_extension_config_dump('_taskshed.edge', '');

-- as in 1.0: request
CREATE INDEX request_number ON _taskshed.request (number);
ALTER TABLE _taskshed.request REPLICA IDENTITY FULL;
CREATE TRIGGER superusers_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON _taskshed.request
FOR EACH STATEMENT EXECUTE FUNCTION taskshed._superusers_only();
ALTER TABLE _taskshed.request ENABLE ALWAYS TRIGGER superusers_only;

CREATE FUNCTION taskshed._guard() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_guard';
REVOKE ALL ON FUNCTION taskshed._guard() FROM PUBLIC;

CREATE FUNCTION taskshed._guard_truncate() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_guard_truncate';
REVOKE ALL ON FUNCTION taskshed._guard_truncate() FROM PUBLIC;

DO $$
DECLARE
	name text;
BEGIN
	FOR name IN SELECT relname FROM pg_catalog.pg_class
		WHERE relnamespace = '_taskshed'::pg_catalog.regnamespace AND relkind = 'r'
	LOOP
		EXECUTE pg_catalog.format('CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE
			ON _taskshed.%I FOR EACH ROW EXECUTE FUNCTION taskshed._guard()', name);
		EXECUTE pg_catalog.format('ALTER TABLE _taskshed.%I ENABLE ALWAYS TRIGGER guard', name);
		EXECUTE pg_catalog.format('CREATE TRIGGER guard_truncate BEFORE TRUNCATE
			ON _taskshed.%I FOR EACH STATEMENT EXECUTE FUNCTION taskshed._guard_truncate()', name);
		EXECUTE pg_catalog.format('ALTER TABLE _taskshed.%I ENABLE ALWAYS TRIGGER guard_truncate', name);
		EXECUTE pg_catalog.format('CREATE TRIGGER guard_truncated AFTER TRUNCATE
			ON _taskshed.%I FOR EACH STATEMENT EXECUTE FUNCTION taskshed._guard_truncate()', name);
		EXECUTE pg_catalog.format('ALTER TABLE _taskshed.%I ENABLE ALWAYS TRIGGER guard_truncated', name);
	END LOOP;
END $$;

CREATE FUNCTION taskshed.update_tasks(changes jsonb, task_ids text[] DEFAULT NULL, group_id text DEFAULT NULL, owner name DEFAULT NULL)
RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_update_tasks';

CREATE FUNCTION taskshed.set_owner(new_owner name, task_ids text[] DEFAULT NULL, group_id text DEFAULT NULL, owner name DEFAULT NULL)
RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_set_owner';

CREATE FUNCTION taskshed.run_task(task_id text, owner name DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_run_task';

CREATE FUNCTION taskshed.activate()
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_activate';

CREATE FUNCTION taskshed._held() RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_held';

-- What was not there yet, or was another.
DROP FUNCTION taskshed.add_task;
DROP FUNCTION taskshed.current_task();
DROP FUNCTION taskshed.next_runs(text, text, timestamptz, integer, interval, timestamptz, text);
DROP FUNCTION taskshed.describe(text, text);
DROP FUNCTION taskshed.import_pg_cron(boolean);
DROP FUNCTION taskshed.export_pg_cron();
-- as in 1.0: add_task
-- as in 1.0: current_run
-- as in 1.0: current_task
-- as in 1.0: parent_result
-- as in 1.0: parent_results
-- as in 1.0: request_run
-- as in 1.0: next_runs
-- as in 1.0: describe
-- as in 1.0: _pg_cron_jobs
-- as in 1.0: import_pg_cron
-- as in 1.0: export_pg_cron

-- as in 1.0: task_details
-- as in 1.0: tasks
-- as in 1.0: _fit
-- as in 1.0: _short_time
-- as in 1.0: overview
-- as in 1.0: followers

-- Who writes to a view is told what to call instead.
CREATE FUNCTION taskshed._cannot_write_view() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_cannot_write_view';
REVOKE ALL ON FUNCTION taskshed._cannot_write_view() FROM PUBLIC;
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
	END LOOP;
END $$;

CREATE FUNCTION taskshed.fetch_tasks(task_ids text[] DEFAULT NULL, group_id text DEFAULT NULL, owner name DEFAULT NULL)
RETURNS SETOF taskshed.tasks
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_fetch_tasks';

CREATE FUNCTION taskshed.fetch_task(task_id text, owner name DEFAULT NULL)
RETURNS taskshed.tasks
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ts_fetch_task';

-- as in 1.0: _details

GRANT SELECT ON _taskshed.task_details, taskshed.tasks, taskshed.overview, taskshed.followers TO PUBLIC;

CREATE OR REPLACE VIEW taskshed.runs WITH (security_barrier) AS
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
DO $$
DECLARE
	function text;
BEGIN
	FOR function IN
		SELECT oid::pg_catalog.regprocedure FROM pg_catalog.pg_proc
		WHERE pronamespace = 'taskshed'::pg_catalog.regnamespace AND prokind = 'f' AND
			(proname !~ '^_' OR proname IN ('_details', '_fit', '_held', '_pg_cron_jobs', '_running', '_short_time', '_status'))
	LOOP
		EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', function);
	END LOOP;
END $$;
GRANT USAGE ON TYPE taskshed.task_execution_time, taskshed.current_run, taskshed.parent_result TO PUBLIC;
GRANT USAGE ON SCHEMA taskshed TO pg_database_owner WITH GRANT OPTION;
GRANT USAGE ON SCHEMA _taskshed TO pg_database_owner;
GRANT SELECT ON SEQUENCE _taskshed.task_seq TO pg_database_owner;
GRANT SELECT ON _taskshed.task, _taskshed.alarm, _taskshed.edge, _taskshed.callback TO pg_database_owner;
