-- Writing to the views: it cannot be done, and the function to call instead is named, to those who have no
-- privilege for it as well. (The mistake is to tell somebody to ask for privileges that are of no use.)
\pset null '(null)'
CREATE ROLE regress_mere LOGIN;
GRANT USAGE ON SCHEMA taskshed TO regress_mere;
CREATE SCHEMA read_only_views;
GRANT USAGE ON SCHEMA read_only_views TO PUBLIC;
SET search_path = read_only_views;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';

SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', owner => 'regress_mere');
CREATE VIEW own AS SELECT * FROM taskshed.tasks;
CREATE FUNCTION writes(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	hint text;
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN SQLSTATE || ' ' || message || coalesce(' -- ' || nullif(hint, ''), '');
END $$;
CREATE TABLE attempts (i serial, command text, answer text);
INSERT INTO attempts (command) VALUES
	($$INSERT INTO taskshed.tasks (task_id, callback) VALUES ('y', 'nothing')$$),
	($$UPDATE taskshed.tasks SET paused_at = now()$$),
	($$DELETE FROM taskshed.tasks$$),
	($$DELETE FROM taskshed.tasks WHERE task_id = 'no such task'$$),
	($$DELETE FROM taskshed.tasks WHERE false$$),
	($$WITH gone AS (DELETE FROM taskshed.tasks RETURNING task_id) SELECT * FROM gone$$),
	($$WITH one AS (WITH gone AS (SELECT 1) SELECT 1) INSERT INTO taskshed.tasks (task_id) SELECT 'y' FROM one ON CONFLICT DO NOTHING$$),
	($$EXPLAIN UPDATE taskshed.tasks SET paused_at = NULL$$),
	($$INSERT INTO taskshed.overview (task_id) VALUES ('y')$$),
	($$UPDATE taskshed.overview SET state = 'paused'$$),
	($$DELETE FROM taskshed.overview$$),
	($$DELETE FROM taskshed.runs WHERE finished_at < now() - interval '1 day'$$),
	($$INSERT INTO taskshed.runs (task_id) VALUES ('x')$$),
	($$UPDATE taskshed.runs SET status = 'succeeded'$$),
	($$UPDATE taskshed.status SET state = 'disabled'$$),
	($$INSERT INTO taskshed.status (database) VALUES ('x')$$),
	($$DELETE FROM taskshed.status$$),
	($$INSERT INTO taskshed.callbacks VALUES ('regress_mere', 'x', 'read_only_views.nothing')$$),
	($$UPDATE taskshed.callbacks SET callback = 'read_only_views.other'$$),
	($$DELETE FROM taskshed.callbacks$$);
UPDATE attempts SET answer = writes(command);
\pset format unaligned
SELECT command, answer FROM attempts ORDER BY i;
\pset format aligned
GRANT ALL ON attempts, own TO regress_mere;
SET ROLE regress_mere;
SELECT command, answer FROM attempts WHERE writes(command) IS DISTINCT FROM answer ORDER BY i;
SELECT writes('DELETE FROM read_only_views.own'), writes('TRUNCATE taskshed.tasks'), writes('TRUNCATE taskshed.runs');
-- There is no privilege behind it: not to write, nor to lock.
SELECT writes('SELECT FROM taskshed.tasks FOR UPDATE');
SELECT writes('LOCK TABLE taskshed.tasks IN ' || m || ' MODE') FROM unnest(ARRAY['ROW EXCLUSIVE', 'ACCESS EXCLUSIVE']) m;
SELECT writes('SELECT taskshed._cannot_write_view()');
-- What is under the view tasks is for nobody to name.
SELECT writes('DELETE FROM _taskshed.task_details');
RESET ROLE;
SELECT writes('DELETE FROM _taskshed.task_details');
-- MERGE is told what its action is. (Before 17 it takes no views.)
SELECT CASE WHEN current_setting('server_version_num')::integer < 170000 THEN answer ELSE writes(format(
	'MERGE INTO taskshed.tasks t USING (SELECT ''y'') s (id) ON t.task_id = s.id WHEN %s', action)) END = answer AS same
FROM (VALUES ($$NOT MATCHED THEN INSERT (task_id) VALUES (s.id)$$, 1), ('MATCHED THEN UPDATE SET paused_at = NULL', 2),
	('NOT MATCHED THEN DO NOTHING WHEN MATCHED THEN DELETE', 3)) m (action, i) JOIN attempts USING (i) ORDER BY i;
-- What a hint names is there.
SELECT DISTINCT f[1] AS "no such function or setting" FROM attempts, regexp_matches(answer, 'taskshed\.([a-z_]+)', 'g') f
WHERE NOT EXISTS (SELECT FROM pg_proc WHERE pronamespace = 'taskshed'::regnamespace AND proname = f[1]) AND
	NOT EXISTS (SELECT FROM pg_settings WHERE name = 'taskshed.' || f[1]);
-- COPY is refused by the trigger itself.
GRANT INSERT ON taskshed.tasks TO regress_mere;
SET ROLE regress_mere;
COPY taskshed.tasks (task_id) FROM stdin;
x
\.
RESET ROLE;
REVOKE INSERT ON taskshed.tasks FROM regress_mere;
SELECT task_id, state FROM taskshed.tasks;
SELECT taskshed.remove_all_tasks('regress_mere');

SET client_min_messages = warning;
DROP SCHEMA read_only_views CASCADE;
REVOKE USAGE ON SCHEMA taskshed FROM regress_mere;
DROP ROLE regress_mere;
