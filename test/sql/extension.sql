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
WHERE relnamespace = '_taskshed'::regnamespace AND relname ~ '^run_[0-7]$' AND relkind = 'r'
	AND reloptions = '{autovacuum_vacuum_insert_threshold=-1}';

-- What users build on it is not dropped in silence.
CREATE VIEW extension.mine AS SELECT task_id, run_at FROM taskshed.tasks;
DROP EXTENSION taskshed;
DROP VIEW extension.mine;

-- Nor are its tables, by way of their schema.
DROP SCHEMA _taskshed CASCADE;
-- Who renames that has to undo it; a schema that somebody else puts in its place is not taken for ours.
ALTER SCHEMA _taskshed RENAME TO elsewhere;
\c -
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT taskshed.pause_task('x');
\echo :LAST_ERROR_SQLSTATE
SELECT taskshed.add_callback('alias', 'extension.nothing');
\echo :LAST_ERROR_SQLSTATE
CREATE SCHEMA _taskshed;
CREATE TABLE _taskshed.callback (LIKE elsewhere.callback INCLUDING ALL);
CREATE TABLE _taskshed.task (LIKE elsewhere.task INCLUDING ALL);
CREATE TABLE _taskshed.alarm (LIKE elsewhere.alarm INCLUDING ALL);
CREATE INDEX alarm_queue ON _taskshed.alarm (owner, run_at, id);
CREATE INDEX alarm_task ON _taskshed.alarm (id, run_at);
CREATE INDEX alarm_failed ON _taskshed.alarm (failed_at);
CREATE INDEX task_group ON _taskshed.task (owner, group_id, task_id);
CREATE TABLE _taskshed.home (LIKE elsewhere.home);
CREATE SEQUENCE _taskshed.task_seq;
SELECT taskshed.pause_task('x');
\echo :LAST_ERROR_SQLSTATE
SELECT taskshed.add_callback('alias', 'extension.nothing');
\echo :LAST_ERROR_SQLSTATE
DROP SCHEMA _taskshed CASCADE;
ALTER SCHEMA elsewhere RENAME TO _taskshed;
SELECT taskshed.resume_task('x');

-- Dropped, with the tasks; only the schema stays, with what was granted on it.
DROP EXTENSION taskshed;
\set VERBOSITY sqlstate
SELECT taskshed.add_task('extension.nothing');
\set VERBOSITY default
SELECT nspname FROM pg_namespace WHERE nspname ~ 'taskshed';
SELECT count(*) FROM pg_settings WHERE name = 'taskshed.enabled';

-- and created again, but nowhere else, and not in a schema of somebody who could drop it
CREATE EXTENSION taskshed SCHEMA extension;
CREATE ROLE regress_squatter;
ALTER SCHEMA taskshed OWNER TO regress_squatter;
CREATE EXTENSION taskshed;
ALTER SCHEMA taskshed OWNER TO CURRENT_USER;
DROP ROLE regress_squatter;
-- nor with its tables in a schema of somebody's
CREATE SCHEMA _taskshed;
CREATE EXTENSION taskshed;
\echo :LAST_ERROR_SQLSTATE
DROP SCHEMA _taskshed;
CREATE EXTENSION taskshed;
SELECT task_id FROM taskshed.tasks;
SELECT taskshed.add_task('extension.nothing', '2100-01-02', task_id => 'x');
SELECT task_id, run_at FROM taskshed.fetch_tasks();
SELECT taskshed.try_task('x'), taskshed.next_wakeup();
SELECT taskshed.remove_task('x');

DROP SCHEMA extension CASCADE;
