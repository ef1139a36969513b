-- Calls for a role: next_runs and run_task for another one's tasks, and scheduling for one as which no worker
-- could connect. (The mistake is to accept what could never run.)
SET timezone = 'UTC';
SET datestyle = 'ISO';
\pset null '(null)'
CREATE ROLE regress_mere LOGIN;
CREATE ROLE regress_member LOGIN IN ROLE regress_mere;
CREATE ROLE regress_locked LOGIN;
GRANT USAGE ON SCHEMA taskshed TO regress_mere, regress_member, regress_locked;
CREATE SCHEMA acting_for;
GRANT USAGE ON SCHEMA acting_for TO PUBLIC;
SET search_path = acting_for;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE PROCEDURE fails(command text) LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	hint text;
BEGIN
	EXECUTE command;
	RAISE NOTICE 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RAISE NOTICE '% %', state, message || coalesce(E'\nHINT:  ' || nullif(hint, ''), '');
END $$;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', owner => 'regress_mere');

-- run_task, one of run_tasks: how it runs is tested elsewhere
SET ROLE regress_mere;
SELECT taskshed.run_task('no such task'), taskshed.run_task(NULL);
CALL fails($$SELECT taskshed.run_task('x', 'regress_member')$$);
RESET ROLE;

-- next_runs of another's task: for whom changing it is allowed
SET ROLE regress_member;
SELECT taskshed.next_runs(task_id => 'x', owner => 'regress_mere');
CALL fails($$SELECT taskshed.next_runs(task_id => 'x')$$);
RESET ROLE;
SET ROLE regress_mere;
SELECT taskshed.next_runs(task_id => 'x'), taskshed.next_runs(task_id => 'x', owner => 'regress_mere');
CALL fails($$SELECT taskshed.next_runs(task_id => 'x', owner => 'regress_member')$$);
CALL fails($$SELECT taskshed.next_runs(task_id => 'x', owner => 'nobody there')$$);
CALL fails($$SELECT taskshed.next_runs('@daily', owner => 'regress_mere')$$);
RESET ROLE;
SELECT taskshed.remove_all_tasks('regress_mere');

-- A role that may not connect to the database: its tasks would wait.
BEGIN;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', owner => 'regress_mere');
DO $$BEGIN EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database()); END$$;
CREATE PROCEDURE no_connect(command text) LANGUAGE plpgsql AS $$
DECLARE
	message text;
	hint text;
BEGIN
	EXECUTE command;
	RAISE NOTICE 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RAISE NOTICE '% %', SQLSTATE, message || coalesce(E'\nHINT:  ' || replace(nullif(hint, ''), quote_ident(current_database()), '...'), '');
END $$;
CALL no_connect($$SELECT taskshed.add_task('nothing', '2100-01-01', owner => 'regress_locked')$$);
CALL no_connect($$SELECT taskshed.add_tasks('[{"callback": "nothing", "run_at": "2100-01-01", "owner": "regress_locked"}]')$$);
CALL no_connect($$SELECT taskshed.set_owner('regress_locked', array['x'], owner => 'regress_mere')$$);
CALL no_connect($$REASSIGN OWNED BY regress_mere TO regress_locked$$);
-- What it has can be changed, removed or given away.
SELECT taskshed.pause_task('x', 'regress_mere'), taskshed.set_owner(current_user, array['x'], owner => 'regress_mere');
DO $$BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO regress_locked', current_database()); END$$;
CALL no_connect($$SELECT taskshed.add_task('acting_for.nothing', '2100-01-01', owner => 'regress_locked')$$);
ROLLBACK;

SET client_min_messages = warning;
DROP SCHEMA acting_for CASCADE;
REVOKE USAGE ON SCHEMA taskshed FROM regress_mere, regress_member, regress_locked;
DROP ROLE regress_mere, regress_member, regress_locked;
