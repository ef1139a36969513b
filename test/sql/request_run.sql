-- request_run(), as far as a session sees it.  Its tasks are paused, or far ahead: what becomes of requests
-- is tested by 093_request_run.pl.
SET timezone = 'UTC';
SET datestyle = 'ISO';
\pset null '(null)'

CREATE ROLE regress_asking LOGIN;
CREATE ROLE regress_asking_for LOGIN;
GRANT USAGE ON SCHEMA taskshed TO regress_asking, regress_asking_for;
CREATE SCHEMA asking;
GRANT USAGE ON SCHEMA asking TO PUBLIC;
SET search_path = asking;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE VIEW plans AS SELECT task_id, run_type, state, every, run_at, after FROM taskshed.tasks ORDER BY owner, task_id;

CREATE PROCEDURE fails(command text) LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
BEGIN
	EXECUTE command;
	RAISE NOTICE 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
	RAISE NOTICE '% %', state, message;
END $$;

-- A task that waits to be asked for
SELECT taskshed.add_task('nothing', run_type => 'recurring', task_id => 'asked', paused => true);
SELECT taskshed.add_task('nothing', run_type => 'recurring', task_id => 'waits');
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'once', paused => true);
SELECT * FROM plans;

-- Whether the task is there
BEGIN;
SELECT taskshed.request_run('asked'), taskshed.request_run('once'), taskshed.request_run('nobody'), taskshed.request_run(NULL);
SELECT taskshed.request_run('asked', current_user), taskshed.request_run(task_id => 'waits', owner => NULL);
SELECT count(*), count(DISTINCT number), count(DISTINCT id) FROM _taskshed.request;

-- One row for a task in a transaction, as long as that is not rolled back
SELECT count(taskshed.request_run('asked')) FROM generate_series(1, 100);
SELECT count(*) FROM _taskshed.request;
SAVEPOINT a;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'more ' || n, paused => true) FROM generate_series(1, 3) n;
SELECT taskshed.request_run('more ' || n) FROM generate_series(1, 3) n;
SAVEPOINT b;
SELECT taskshed.request_run('more ' || n) FROM generate_series(1, 3) n;
RELEASE b;
SELECT count(*) FROM _taskshed.request;
ROLLBACK TO a;
SELECT count(*) FROM _taskshed.request;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'more 1', paused => true);
SELECT taskshed.request_run('more 1') FROM generate_series(1, 3);
SELECT count(*) FROM _taskshed.request;
ROLLBACK;
SELECT count(*) FROM _taskshed.request;
SELECT * FROM plans;

-- Nothing is changed, and nothing is locked
BEGIN;
SELECT taskshed.request_run('asked');
SELECT relation::regclass, mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation IN ('_taskshed.task'::regclass, '_taskshed.alarm'::regclass, '_taskshed.request'::regclass)
ORDER BY relation::regclass::text COLLATE "C";
SELECT DISTINCT xmax::text FROM _taskshed.alarm;
ROLLBACK;

-- For whom, and where not
SET ROLE regress_asking_for;
SELECT taskshed.add_task('nothing', run_type => 'recurring', task_id => 'theirs', paused => true);
SET ROLE regress_asking;
SELECT taskshed.request_run('theirs');
CALL fails($$SELECT taskshed.request_run('theirs', 'regress_asking_for')$$);
CALL fails($$SELECT taskshed.request_run('theirs', 'regress_nobody')$$);
CALL fails($$SELECT * FROM _taskshed.request$$);
RESET ROLE;
GRANT regress_asking_for TO regress_asking;
BEGIN;
SET ROLE regress_asking;
SELECT taskshed.request_run('theirs', 'regress_asking_for');
ROLLBACK;
BEGIN READ ONLY;
CALL fails($$SELECT taskshed.request_run('asked')$$);
ROLLBACK;

-- A task that waits to be asked for, and is made another one
SELECT taskshed.update_tasks('{"every": "1 year", "run_at": "2100-01-01"}', '{waits}');
SELECT * FROM plans WHERE task_id = 'waits';
SELECT taskshed.add_task('nothing', run_type => 'recurring', task_id => 'waits');
SELECT * FROM plans WHERE task_id = 'waits';
SELECT taskshed.update_tasks('{"run_type": "once", "run_at": "2100-01-01"}', '{waits}');
SELECT * FROM plans WHERE task_id = 'waits';
SELECT taskshed.add_task('nothing', run_type => 'recurring', task_id => 'waits');
SELECT taskshed.update_tasks('{"run_type": "once", "paused": true}', '{waits}');
SELECT task_id, run_type, state, run_at <= now() AS due FROM taskshed.tasks WHERE task_id = 'waits';

SELECT taskshed.remove_all_tasks(), taskshed.remove_all_tasks('regress_asking_for');
SELECT count(*) FROM _taskshed.request;
DROP SCHEMA asking CASCADE;
DROP OWNED BY regress_asking, regress_asking_for;
DROP ROLE regress_asking, regress_asking_for;
