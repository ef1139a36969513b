-- Who may do what: USAGE on the schema to schedule, membership to act for another role, and nothing but
-- the functions and views to do it with.
SET timezone = 'UTC';
SET datestyle = 'ISO';
\pset null '(null)'

CREATE ROLE regress_alice LOGIN;
CREATE ROLE regress_bob LOGIN;
CREATE ROLE regress_boss LOGIN IN ROLE regress_alice;
CREATE ROLE regress_reader LOGIN IN ROLE pg_read_all_stats;
CREATE ROLE regress_outsider LOGIN;
CREATE ROLE regress_nologin NOLOGIN;

CREATE SCHEMA permissions;
SET search_path = permissions;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION whoami(secret text DEFAULT '') RETURNS text LANGUAGE sql AS 'SELECT current_user || '' '' || secret';
CREATE FUNCTION guarded() RETURNS void LANGUAGE sql AS '';
REVOKE ALL ON FUNCTION guarded() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION guarded() TO regress_alice;
GRANT ALL ON SCHEMA permissions TO PUBLIC;
CREATE SCHEMA closed;
CREATE FUNCTION closed.nothing() RETURNS void LANGUAGE sql AS '';

CREATE PROCEDURE fails(command text) LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE command;
	RAISE NOTICE 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RAISE NOTICE '% %', state, message || coalesce(E'\nDETAIL:  ' || nullif(detail, ''), '') ||
		coalesce(E'\nHINT:  ' || nullif(hint, ''), '');
END $$;

-- Without USAGE on the schema, which nobody has from the start: nothing
SET ROLE regress_alice;
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01')$$);
CALL fails($$SELECT * FROM taskshed.tasks$$);
CALL fails($$SELECT taskshed.next_wakeup()$$);
RESET ROLE;

GRANT USAGE ON SCHEMA taskshed TO regress_alice, regress_bob, regress_boss, regress_reader, regress_nologin;

-- With it, each role schedules as itself, and task_ids are its own.
SET ROLE regress_alice;
SELECT taskshed.add_task('whoami', '2100-01-01', '{"secret": "of alice"}', task_id => 'nightly', group_id => 'g');
SELECT taskshed.try_task('nightly');
SET ROLE regress_bob;
SELECT taskshed.add_task('whoami', '2100-01-02', '{"secret": "of bob"}', task_id => 'nightly', group_id => 'g');
SELECT taskshed.add_task('nothing', '2100-01-03', task_id => 'bob''s', group_id => 'g');
SELECT taskshed.try_task('nightly');
RESET ROLE;
SELECT taskshed.add_task('whoami', '2100-01-04', '{"secret": "of the superuser"}', task_id => 'nightly', group_id => 'g');
-- (This update stands for runs that failed.)
UPDATE _taskshed.alarm SET last_status = 'failed', last_sqlstate = 'P0001', last_error = 'a secret as well'
WHERE run_at < '2100-01-03';

-- What each role sees: its own tasks and those of roles it is a member of; pg_read_all_stats all of them, without
-- arguments and messages; a superuser all.
CREATE FUNCTION seen() RETURNS TABLE (owner text, task_id text, callback text, kwargs jsonb, run_at date, last_sqlstate text, last_error text)
LANGUAGE sql AS $$
	SELECT CASE WHEN owner LIKE 'regress%' THEN owner ELSE '(superuser)' END, task_id, callback, kwargs, run_at, last_sqlstate, last_error
	FROM taskshed.tasks ORDER BY run_at
$$;
SET ROLE regress_alice;
SELECT * FROM seen();
SELECT taskshed.next_wakeup();
SET ROLE regress_bob;
SELECT * FROM seen();
SELECT taskshed.next_wakeup();
SET ROLE regress_boss;
SELECT * FROM seen();
SELECT count(*) FROM taskshed.fetch_tasks();
SET ROLE regress_reader;
SELECT * FROM seen();
SELECT taskshed.next_wakeup();
RESET ROLE;
SELECT * FROM seen();

-- No function in a WHERE gets to see more.
SET ROLE regress_bob;
CREATE FUNCTION leak(task_id text, kwargs jsonb) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
$$BEGIN RAISE NOTICE '% %', task_id, kwargs; RETURN true; END$$;
SELECT count(*) FROM taskshed.tasks WHERE leak(task_id, kwargs);
RESET ROLE;

-- The current user counts: in a function with SECURITY DEFINER that is its owner.
SET ROLE regress_alice;
CREATE FUNCTION schedule_for_me() RETURNS text SECURITY DEFINER LANGUAGE sql AS
$$SELECT taskshed.add_task('permissions.nothing', '2100-01-01', task_id => 'by definer')$$;
SET ROLE regress_bob;
SELECT schedule_for_me();
SELECT count(*) FROM taskshed.fetch_tasks(ARRAY['by definer']);
SET ROLE regress_alice;
SELECT owner FROM taskshed.fetch_task('by definer');
SELECT taskshed.remove_task('by definer');

-- Another owner: for its members and superusers only
SET ROLE regress_boss;
SELECT taskshed.add_task('nothing', '2100-01-05', task_id => 'from the boss', owner => 'regress_alice');
SELECT task_id, owner FROM taskshed.fetch_tasks(owner => 'regress_alice');
SELECT (taskshed.fetch_task('nightly', 'regress_alice')).kwargs;
SELECT taskshed.pause_task('nightly', 'regress_alice'), taskshed.pause_tasks(ARRAY['from the boss'], owner => 'regress_alice');
SELECT taskshed.resume_tasks(group_id => 'g', owner => 'regress_alice'), taskshed.resume_task('from the boss', 'regress_alice');
SELECT taskshed.update_execution_time('from the boss', '2100-01-06', 'regress_alice'),
	taskshed.update_execution_times(ARRAY[('from the boss', '2100-01-07')]::taskshed.task_execution_time[], 'regress_alice');
SELECT taskshed.add_tasks('[{"callback": "permissions.nothing", "run_at": "2100-01-08", "task_id": "mine"},
	{"callback": "permissions.nothing", "run_at": "2100-01-08", "task_id": "mine", "owner": "regress_alice"}]');
SELECT owner, task_id FROM taskshed.tasks WHERE task_id = 'mine' ORDER BY owner;
SELECT taskshed.remove_task('mine', 'regress_alice'), taskshed.remove_tasks(ARRAY['from the boss'], owner => 'regress_alice');
SELECT taskshed.remove_all_tasks();
-- but trying a task runs its code with the rights of the one who tries
CALL fails($$SELECT taskshed.try_task('nightly')$$);
SET ROLE regress_alice;
SELECT task_id FROM taskshed.fetch_tasks();

-- The other way round, and for strangers: no
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', owner => 'regress_boss')$$);
SET ROLE regress_bob;
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', owner => 'regress_alice')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "permissions.nothing", "run_at": "2100-01-01", "owner": "regress_alice"}]')$$);
CALL fails($$SELECT taskshed.fetch_tasks(owner => 'regress_alice')$$);
CALL fails($$SELECT taskshed.fetch_task('nightly', 'regress_alice')$$);
CALL fails($$SELECT taskshed.pause_tasks(ARRAY['nightly'], owner => 'regress_alice')$$);
CALL fails($$SELECT taskshed.resume_tasks(ARRAY['nightly'], owner => 'regress_alice')$$);
CALL fails($$SELECT taskshed.remove_tasks(ARRAY['nightly'], owner => 'regress_alice')$$);
CALL fails($$SELECT taskshed.pause_task('nightly', 'regress_alice')$$);
CALL fails($$SELECT taskshed.resume_task('nightly', 'regress_alice')$$);
CALL fails($$SELECT taskshed.remove_task('nightly', 'regress_alice')$$);
CALL fails($$SELECT taskshed.update_execution_time('nightly', '2100-01-01', 'regress_alice')$$);
CALL fails($$SELECT taskshed.update_execution_times('{}', 'regress_alice')$$);
CALL fails($$SELECT taskshed.remove_all_tasks('regress_alice')$$);
CALL fails($$SELECT taskshed.try_task('no such task')$$);
SET ROLE regress_reader;
CALL fails($$SELECT taskshed.fetch_tasks(owner => 'regress_alice')$$);
RESET ROLE;
-- Membership without the right to SET ROLE (16 and later; before that, none at all) does not do either.
DO $$
BEGIN
	IF current_setting('server_version_num')::integer >= 160000 THEN
		EXECUTE 'GRANT regress_alice TO regress_reader WITH SET FALSE';
	END IF;
END $$;
SET ROLE regress_reader;
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', owner => 'regress_alice')$$);
RESET ROLE;

-- A superuser acts for all; without owner, its calls leave the others' tasks of the same name alone.
SELECT taskshed.pause_tasks(ARRAY['nightly']);
SELECT owner LIKE 'regress%' AS tenant, state FROM taskshed.tasks WHERE task_id = 'nightly' ORDER BY 1, 2;
SELECT taskshed.remove_all_tasks();
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'for bob', owner => 'regress_bob');
SELECT owner, task_id FROM taskshed.fetch_tasks(owner => 'regress_bob');
SELECT taskshed.remove_all_tasks('regress_bob');

-- The callback must be one that the owner may call.
SET ROLE regress_alice;
SELECT taskshed.add_task('guarded', '2100-01-01', task_id => 'guarded');
SELECT taskshed.remove_task('guarded');
CALL fails($$SELECT taskshed.add_task('closed.nothing', '2100-01-01')$$);
SET ROLE regress_bob;
CALL fails($$SELECT taskshed.add_task('guarded', '2100-01-01')$$);
RESET ROLE;
CALL fails($$SELECT taskshed.add_task('guarded', '2100-01-01', owner => 'regress_bob')$$);
CALL fails($$SELECT taskshed.add_task('closed.nothing', '2100-01-01', owner => 'regress_bob')$$);
SELECT taskshed.add_task('guarded', '2100-01-01', task_id => 'not yet', owner => 'regress_bob', validate => false);
SET ROLE regress_bob;
CALL fails($$SELECT taskshed.try_task('not yet')$$);
SELECT taskshed.remove_all_tasks();
RESET ROLE;

-- The tables are for superusers, who alone can name them, and so are the functions behind the scenes.
SET ROLE regress_alice;
CALL fails($$SELECT * FROM _taskshed.task$$);
RESET ROLE;
GRANT USAGE ON SCHEMA _taskshed TO regress_alice;
SET ROLE regress_alice;
CALL fails($$SELECT * FROM _taskshed.task$$);
CALL fails($$SELECT * FROM _taskshed.alarm$$);
CALL fails($$INSERT INTO _taskshed.alarm SELECT * FROM _taskshed.alarm$$);
CALL fails($$UPDATE _taskshed.task SET owner = 10$$);
CALL fails($$UPDATE _taskshed.alarm SET run_at = now()$$);
CALL fails($$DELETE FROM _taskshed.task$$);
CALL fails($$DELETE FROM _taskshed.alarm$$);
CALL fails($$TRUNCATE _taskshed.task$$);
CALL fails($$LOCK _taskshed.alarm IN ACCESS SHARE MODE$$);
CALL fails($$SELECT nextval('_taskshed.task_seq')$$);
CALL fails($$SELECT last_value FROM _taskshed.task_seq$$);
RESET ROLE;
REVOKE USAGE ON SCHEMA _taskshed FROM regress_alice;
SET ROLE regress_alice;
CALL fails($$UPDATE taskshed.tasks SET run_at = now()$$);
CALL fails($$DELETE FROM taskshed.tasks$$);
CALL fails($$CREATE TABLE taskshed.mine ()$$);
CALL fails($$CALL taskshed.execute('SELECT 1')$$);
CREATE TABLE mine (id bigint, run_at timestamptz, a text, b text, c text, owner oid, d text, e text, f text, g text, h text, i text, j text, k text);
CALL fails($$CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION taskshed._alarm_changed()$$);
CALL fails($$SELECT taskshed._start_scheduler()$$);
CALL fails($$SET taskshed.enabled = off$$);
CALL fails($$SET taskshed.max_workers = 1$$);
CALL fails($$SET taskshed.no_such_setting = 1$$);
-- of which these show nothing that is not the reader's
SELECT * FROM taskshed._running();
SELECT count(*) FROM taskshed.status WHERE database <> current_database();
RESET ROLE;
SELECT relname, privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS grantee
FROM pg_class c, aclexplode(relacl) acl
WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND grantee <> relowner
ORDER BY 1, 2;

-- A role that may not log in: no worker can be started for it before 17.
DO $$
DECLARE
	message text;
	hint text;
BEGIN
	PERFORM taskshed.add_task('permissions.nothing', '2100-01-01', owner => 'regress_nologin');
	IF current_setting('server_version_num')::integer < 170000 THEN
		RAISE NOTICE 'it should not be there';
	END IF;
	PERFORM taskshed.remove_all_tasks('regress_nologin');
	RAISE NOTICE 'as it should be';
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	IF current_setting('server_version_num')::integer < 170000 AND
		message = 'tasks cannot run as role "regress_nologin", which is not permitted to log in' AND
		hint = 'ALTER ROLE regress_nologin LOGIN lets its tasks run (it needs no password), or schedule as another role with owner.'
	THEN
		RAISE NOTICE 'as it should be';
	ELSE
		RAISE NOTICE '% %', message, hint;
	END IF;
END $$;

-- In code that another user has put into a table's definition, nothing can be changed.
SET ROLE regress_bob;
CREATE FUNCTION trap(n integer, command text) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$BEGIN EXECUTE command; RETURN n; END$$;
CREATE TABLE trapped (n integer);
INSERT INTO trapped VALUES (1);
RESET ROLE;
CALL fails($$CREATE INDEX ON trapped (trap(n, 'SELECT taskshed.add_task(''permissions.nothing'', ''2100-01-01'')'))$$);
CALL fails($$CREATE INDEX ON trapped (trap(n, 'SELECT taskshed.add_tasks(''[]'')'))$$);
CALL fails($$CREATE INDEX ON trapped (trap(n, 'SELECT taskshed.remove_all_tasks()'))$$);
CALL fails($$CREATE INDEX ON trapped (trap(n, 'SELECT taskshed.pause_task(''x'')'))$$);
CALL fails($$CREATE INDEX ON trapped (trap(n, 'SELECT taskshed.resume_tasks(''{x}'')'))$$);
CALL fails($$CREATE INDEX ON trapped (trap(n, 'SELECT taskshed.update_execution_time(''x'', ''2100-01-01'')'))$$);
CREATE INDEX ON trapped (trap(n, 'SELECT FROM taskshed.tasks'));
SET ROLE regress_bob;
CREATE MATERIALIZED VIEW trapped_too AS
SELECT taskshed.add_task('permissions.nothing', '2100-01-01') WITH NO DATA;
RESET ROLE;
CALL fails($$REFRESH MATERIALIZED VIEW trapped_too$$);
SELECT count(*) FROM taskshed.tasks WHERE owner = 'regress_bob';

-- Read-only transactions read.
BEGIN READ ONLY;
SELECT count(*) FROM taskshed.fetch_tasks(owner => 'regress_alice');
SELECT (taskshed.fetch_task('nightly', 'regress_alice')).task_id;
SELECT taskshed.next_wakeup();
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01')$$);
CALL fails($$SELECT taskshed.add_tasks('[]')$$);
CALL fails($$SELECT taskshed.pause_tasks('{}')$$);
CALL fails($$SELECT taskshed.resume_tasks('{}')$$);
CALL fails($$SELECT taskshed.remove_tasks('{}')$$);
CALL fails($$SELECT taskshed.pause_task('x')$$);
CALL fails($$SELECT taskshed.resume_task('x')$$);
CALL fails($$SELECT taskshed.remove_task('x')$$);
CALL fails($$SELECT taskshed.remove_all_tasks()$$);
CALL fails($$SELECT taskshed.update_execution_time('x', '2100-01-01')$$);
CALL fails($$SELECT taskshed.update_execution_times('{}')$$);
SET LOCAL ROLE regress_alice;
SELECT taskshed.try_task('nightly');
COMMIT;

-- A transaction that has scheduled can be prepared, and so can one that has looked.
BEGIN;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'prepared');
PREPARE TRANSACTION 'regress_taskshed';
SELECT count(*) FROM taskshed.tasks WHERE task_id = 'prepared';
ROLLBACK PREPARED 'regress_taskshed';
BEGIN;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'prepared');
PREPARE TRANSACTION 'regress_taskshed';
COMMIT PREPARED 'regress_taskshed';
BEGIN;
SELECT count(*) FROM taskshed.tasks WHERE task_id = 'prepared';
PREPARE TRANSACTION 'regress_taskshed';
ROLLBACK PREPARED 'regress_taskshed';
SELECT taskshed.remove_task('prepared');

-- A role that is renamed keeps its tasks; one that is dropped leaves them to nobody, its successor of the same
-- name included.
ALTER ROLE regress_alice RENAME TO regress_alicia;
SELECT owner, task_id FROM taskshed.fetch_tasks(owner => 'regress_alicia');
ALTER ROLE regress_alicia RENAME TO regress_alice;
SET client_min_messages = warning;
DROP OWNED BY regress_bob CASCADE;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'orphan', owner => 'regress_bob');
DROP ROLE regress_bob;
SELECT owner ~ '^\d+$' AS by_oid, task_id FROM taskshed.tasks WHERE task_id = 'orphan';
SET ROLE regress_alice;
SELECT count(*) FROM taskshed.tasks WHERE task_id = 'orphan';
RESET ROLE;
CREATE ROLE regress_bob LOGIN;
GRANT USAGE ON SCHEMA taskshed TO regress_bob;
SET ROLE regress_bob;
SELECT task_id FROM taskshed.tasks;
SELECT taskshed.remove_task('orphan');
RESET ROLE;
DELETE FROM _taskshed.alarm USING _taskshed.task WHERE alarm.id = task.id AND task_id = 'orphan';
DELETE FROM _taskshed.task WHERE task_id = 'orphan';

SELECT taskshed.remove_all_tasks('regress_alice');
SELECT count(*) FROM taskshed.tasks;
RESET search_path;
DROP SCHEMA permissions, closed CASCADE;
REVOKE ALL ON SCHEMA taskshed FROM regress_alice, regress_bob, regress_boss, regress_reader, regress_nologin;
DROP ROLE regress_alice, regress_bob, regress_boss, regress_reader, regress_outsider, regress_nologin;
