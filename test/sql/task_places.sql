-- An alarm has the place of its task's row, so that a run need not look for it. Whatever writes the task
-- writes that, too. (A wrong place does no harm: 042_odd_rows, 064_own_tables.)
SET client_min_messages = warning;
CREATE ROLE regress_places LOGIN;
CREATE ROLE regress_others LOGIN;
GRANT USAGE ON SCHEMA taskshed TO regress_places, regress_others;
GRANT regress_others TO regress_places;
CREATE FUNCTION pg_temp.elsewhere() RETURNS TABLE (task_id text, "where" tid, known tid) LANGUAGE sql AS $$
	SELECT t.task_id, t.ctid, a.task_tid FROM _taskshed.task t JOIN _taskshed.alarm a USING (id)
	WHERE a.task_tid IS DISTINCT FROM t.ctid ORDER BY t.task_id
$$;
GRANT CREATE ON SCHEMA public TO regress_places, regress_others;

SET ROLE regress_places;
CREATE FUNCTION place() RETURNS void LANGUAGE sql AS '';
SELECT taskshed.add_task('place', '2100-01-01', task_id => 'one');
SELECT taskshed.add_task('place', '2100-01-01', task_id => 'kept', replace_existing => false);
SELECT taskshed.add_task('place', '2100-01-01') IS NOT NULL AS "one without a name";
SELECT cardinality(taskshed.add_tasks(jsonb_agg(jsonb_build_object('callback', 'place', 'run_at', '2100-01-01', 'task_id', 'many ' || i))))
FROM generate_series(1, 200) AS i;
RESET ROLE;
SELECT count(*) AS tasks FROM _taskshed.task;
SELECT * FROM pg_temp.elsewhere();

-- What changes a task moves it.
SET ROLE regress_places;
SELECT taskshed.add_task('place', '2100-01-02', task_id => 'one', max_attempts => 2);
SELECT taskshed.add_task('place', '2100-01-02', task_id => 'kept', replace_existing => false);
SELECT taskshed.update_tasks('{"description": "moved"}', array['many 1', 'many 2']);
SELECT taskshed.update_tasks('{"run_at": "2100-01-03"}', array['many 2', 'many 3']);
SELECT taskshed.set_owner('regress_others', array['many 4']);
RESET ROLE;
SELECT * FROM pg_temp.elsewhere();

-- Two changes in one transaction, and one that is rolled back
SET ROLE regress_places;
BEGIN;
SELECT taskshed.update_tasks('{"description": "once"}', array['many 5']);
SELECT taskshed.update_tasks('{"description": "twice"}', array['many 5']);
SAVEPOINT s;
SELECT taskshed.update_tasks('{"description": "thrice"}', array['many 5']);
ROLLBACK TO s;
SELECT taskshed.pause_task('many 5');
COMMIT;
RESET ROLE;
SELECT * FROM pg_temp.elsewhere();

SELECT taskshed.remove_all_tasks('regress_places'), taskshed.remove_all_tasks('regress_others');
DROP OWNED BY regress_places, regress_others;
DROP ROLE regress_places, regress_others;
