-- The extension itself: its schema is fixed, and it can be dropped and created again in a session that has
-- used it.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE SCHEMA extension;
CREATE FUNCTION extension.nothing() RETURNS text LANGUAGE sql AS $$SELECT 'done'$$;

CREATE EXTENSION taskshed;
ALTER EXTENSION taskshed SET SCHEMA public;

SELECT taskshed.add_task('extension.nothing', '2100-01-01', task_id => 'x');
SELECT task_id FROM taskshed.fetch_tasks();
SELECT taskshed.try_task('x');

-- A drop that is rolled back leaves all as it was.
BEGIN;
DROP EXTENSION taskshed;
SELECT count(*) FROM pg_namespace WHERE nspname = 'taskshed';
ROLLBACK;
SELECT task_id FROM taskshed.fetch_tasks();
SELECT taskshed.pause_task('x');
BEGIN;
DROP EXTENSION taskshed;
CREATE EXTENSION taskshed;
SELECT taskshed.add_task('extension.nothing', '2100-01-01', task_id => 'y');
SELECT task_id FROM taskshed.fetch_tasks();
ROLLBACK;
SELECT task_id, state FROM taskshed.fetch_tasks();

-- The tables of the history have nothing that is worth vacuuming for.
SELECT count(*) FROM pg_class
WHERE relnamespace = 'taskshed'::regnamespace AND relname ~ '^run_[0-7]$' AND relkind = 'r'
	AND reloptions = '{autovacuum_vacuum_insert_threshold=-1}';

-- What users build on it is not dropped in silence.
CREATE VIEW extension.mine AS SELECT task_id, run_at FROM taskshed.tasks;
DROP EXTENSION taskshed;
DROP VIEW extension.mine;

-- Dropped, with the tasks; only the schema stays, with what was granted on it.
DROP EXTENSION taskshed;
\set VERBOSITY sqlstate
SELECT taskshed.add_task('extension.nothing');
\set VERBOSITY default
SELECT count(*) FROM pg_namespace WHERE nspname = 'taskshed';
SELECT count(*) FROM pg_settings WHERE name = 'taskshed.enabled';

-- and created again, but nowhere else, and not in a schema of somebody who could drop it
CREATE EXTENSION taskshed SCHEMA extension;
CREATE ROLE regress_squatter;
ALTER SCHEMA taskshed OWNER TO regress_squatter;
CREATE EXTENSION taskshed;
ALTER SCHEMA taskshed OWNER TO CURRENT_USER;
DROP ROLE regress_squatter;
CREATE EXTENSION taskshed;
SELECT task_id FROM taskshed.tasks;
SELECT taskshed.add_task('extension.nothing', '2100-01-02', task_id => 'x');
SELECT task_id, run_at FROM taskshed.fetch_tasks();
SELECT taskshed.try_task('x'), taskshed.next_wakeup();
SELECT taskshed.remove_task('x');

DROP SCHEMA extension CASCADE;
