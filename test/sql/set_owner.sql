-- Giving tasks to other roles: set_owner, REASSIGN OWNED and DROP OWNED; and what a role that was dropped
-- leaves behind.
--
-- All tasks are far ahead: none of them runs.
SET timezone = 'UTC';
SET datestyle = 'ISO';
\pset null '(null)'

CREATE ROLE regress_alice LOGIN;
CREATE ROLE regress_bob LOGIN;
CREATE ROLE regress_carol LOGIN;
CREATE ROLE regress_both LOGIN IN ROLE regress_alice, regress_bob;
CREATE ROLE regress_nologin NOLOGIN;
GRANT USAGE ON SCHEMA taskshed TO regress_alice, regress_bob, regress_carol, regress_both, regress_nologin;

CREATE SCHEMA set_owner;
GRANT ALL ON SCHEMA set_owner TO PUBLIC;
SET search_path = set_owner;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION something() RETURNS void LANGUAGE sql AS '';

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

-- What a command says about a role that is given by its OID
CREATE FUNCTION says(command text, secret text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format(command, secret);
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate || ' ' || replace(sqlerrm, secret, '(the OID)');
END $$;

-- All tasks, with what must not change when they are given away, and whether the tables agree.
CREATE VIEW seen AS
SELECT t.owner, t.task_id, t.group_id, t.callback, d.is_alias, t.state,
	a.revision = (extract(epoch FROM t.created_at - '2000-01-01 00:00+00'::timestamptz) * 1000000)::bigint AS first_revision,
	d.owner = a.owner AND d.owner_name = t.owner AS agree
FROM taskshed.tasks t JOIN _taskshed.task d ON d.owner = t.owner::regrole AND d.task_id = t.task_id JOIN _taskshed.alarm a ON a.id = d.id
ORDER BY t.owner, t.task_id;
CREATE PROCEDURE four_tasks() LANGUAGE sql AS $$
	SELECT taskshed.remove_all_tasks(r) FROM unnest('{regress_alice,regress_bob,regress_carol}'::name[]) r;
	SELECT taskshed.add_task('set_owner.nothing', '2100-01-01', task_id => id, owner => 'regress_alice',
		group_id => CASE WHEN id IN ('a', 'b') THEN 'g' END)
	FROM unnest('{d,b,a,c}'::text[]) id;
	SELECT taskshed.pause_task('b', 'regress_alice');
	UPDATE _taskshed.alarm SET failed_at = now() FROM _taskshed.task t WHERE t.id = alarm.id AND t.task_id = 'c' AND t.owner = 'regress_alice'::regrole;
$$;

-- By task_ids, by group, all of an owner; everything else stays.
CALL four_tasks();
SET ROLE regress_both;
SELECT taskshed.set_owner('regress_bob', ARRAY['a', 'c', NULL, 'a', 'missing'], owner => 'regress_alice');
RESET ROLE;
TABLE seen;
SELECT taskshed.set_owner('regress_bob', group_id => 'g', owner => 'regress_alice');
SELECT taskshed.set_owner('regress_bob', group_id => 'g', owner => 'regress_alice');
SELECT taskshed.set_owner('regress_alice', owner => 'regress_bob');
TABLE seen;
-- to the same role: nothing
SELECT taskshed.set_owner('regress_alice', owner => 'regress_alice'), taskshed.set_owner('regress_alice', '{a}', owner => 'regress_alice');
-- one's own
SET ROLE regress_both;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'mine');
SELECT taskshed.set_owner('regress_alice', '{mine,a}');
RESET ROLE;
-- The new owner has it, and the old one has not.
SET ROLE regress_alice;
SELECT taskshed.remove_task('mine');
SELECT task_id, state FROM taskshed.fetch_tasks() ORDER BY task_id;
RESET ROLE;

-- All or none: not if the new owner has one of that task_id.
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'c', owner => 'regress_bob');
CALL fails($$SELECT taskshed.set_owner('regress_bob', owner => 'regress_alice')$$);
CALL fails($$SELECT taskshed.set_owner('regress_bob', '{b,c}', owner => 'regress_alice')$$);
SELECT owner, task_id FROM seen;
SELECT taskshed.set_owner('regress_bob', '{a,b,d}', owner => 'regress_alice');
SELECT owner, task_id FROM seen;

-- Who may: who can act for both. And where to: a role that tasks can run as.
CALL four_tasks();
SET ROLE regress_alice;
CALL fails($$SELECT taskshed.set_owner('regress_bob', '{a}')$$);
CALL fails($$SELECT taskshed.set_owner('regress_bob', '{missing}')$$);
SET ROLE regress_bob;
CALL fails($$SELECT taskshed.set_owner('regress_bob', '{a}', owner => 'regress_alice')$$);
RESET ROLE;
CALL fails($$SELECT taskshed.set_owner('no such role', '{a}', owner => 'regress_alice')$$);
CALL fails($$SELECT taskshed.set_owner('regress_bob', '{a}', owner => 'no such role')$$);
CALL fails($$SELECT taskshed.set_owner(NULL, '{a}', owner => 'regress_alice')$$);
CALL fails($$SELECT taskshed.set_owner('regress_bob')$$);
CALL fails($$SELECT taskshed.set_owner('regress_bob', '{a}', 'g')$$);
CALL fails($$SELECT taskshed.set_owner('regress_bob', '{a}', 'g', 'regress_alice')$$);
BEGIN READ ONLY;
CALL fails($$SELECT taskshed.set_owner('regress_bob', '{a}', owner => 'regress_alice')$$);
COMMIT;
DO $$
BEGIN
	PERFORM taskshed.set_owner('regress_nologin', '{d}', owner => 'regress_alice');
	IF current_setting('server_version_num')::integer < 170000 THEN
		RAISE NOTICE 'it should have failed';
	END IF;
	PERFORM taskshed.set_owner('regress_alice', owner => 'regress_nologin');
	RAISE NOTICE 'as it should be';
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	RAISE NOTICE '%', CASE WHEN current_setting('server_version_num')::integer < 170000 THEN 'as it should be' ELSE sqlerrm END;
END $$;
SELECT owner, task_id FROM seen;
BEGIN;
SELECT taskshed.set_owner('regress_bob', owner => 'regress_alice');
ROLLBACK;
SELECT owner, task_id FROM seen;

-- Aliases: a task goes on calling what it has called.
SET ROLE regress_alice;
SELECT taskshed.remove_all_tasks();
SELECT taskshed.add_callback('same', 'nothing'), taskshed.add_callback('other', 'nothing'),
	taskshed.add_callback('alone', 'nothing'), taskshed.add_callback('gone', 'nothing');
SELECT taskshed.add_task(alias, '2100-01-01', task_id => alias) FROM unnest('{same,other,alone,gone}'::text[]) alias;
SELECT taskshed.remove_callback('gone');
SET ROLE regress_bob;
SELECT taskshed.add_callback('same', 'nothing'), taskshed.add_callback('other', 'something');
RESET ROLE;
BEGIN;
SELECT taskshed.set_owner('regress_bob', owner => 'regress_alice');
SELECT owner, task_id, callback, is_alias FROM seen;
ROLLBACK;

-- REASSIGN OWNED: the same, and aliases go along unless the name is taken.
BEGIN;
REASSIGN OWNED BY regress_alice TO regress_bob;
SELECT owner, task_id, callback, is_alias, agree FROM seen;
SELECT * FROM taskshed.callbacks ORDER BY owner, name;
SELECT DISTINCT owner_name FROM _taskshed.callback WHERE owner = 'regress_bob'::regrole;
ROLLBACK;
-- several at once, and who is asked with another word
BEGIN;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'of both', owner => 'regress_both');
SET LOCAL ROLE regress_both;
REASSIGN OWNED BY regress_alice, CURRENT_USER TO regress_bob;
RESET ROLE;
SELECT owner, task_id FROM seen;
SET LOCAL ROLE regress_both;
REASSIGN OWNED BY regress_bob TO CURRENT_ROLE;
RESET ROLE;
SELECT owner, task_id FROM seen;
ROLLBACK;
-- in a function, twice, so that its plan is used again
CREATE FUNCTION give() RETURNS void LANGUAGE sql AS $$
	REASSIGN OWNED BY regress_alice TO regress_bob;
	REASSIGN OWNED BY regress_bob TO regress_alice;
$$;
CREATE PROCEDURE give_twice() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..2 LOOP
		REASSIGN OWNED BY regress_alice TO regress_bob;
		REASSIGN OWNED BY regress_bob TO regress_alice;
	END LOOP;
END $$;
BEGIN;
SELECT give();
CALL give_twice();
SELECT owner, count(*) FROM taskshed.tasks GROUP BY owner;
ROLLBACK;
-- to itself
REASSIGN OWNED BY regress_alice TO regress_alice;
SELECT owner, count(*) FROM taskshed.tasks GROUP BY owner;
-- not with a task_id that is taken: nothing is reassigned then, what else there is included
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'other', owner => 'regress_bob');
CREATE TABLE of_alice ();
ALTER TABLE of_alice OWNER TO regress_alice;
CALL fails($$REASSIGN OWNED BY regress_alice TO regress_bob$$);
SELECT owner, task_id FROM seen;
SELECT relowner::regrole FROM pg_class WHERE oid = 'of_alice'::regclass;
-- and not by those who may not
SET ROLE regress_carol;
CALL fails($$REASSIGN OWNED BY regress_alice TO regress_carol$$);
-- (the server's own messages differ between releases)
DO $$BEGIN REASSIGN OWNED BY regress_carol TO regress_bob; EXCEPTION WHEN insufficient_privilege THEN RAISE NOTICE '%', sqlstate; END$$;
CALL fails($$DROP OWNED BY regress_alice$$);
RESET ROLE;
-- A role that tasks cannot run as gets other things, but no tasks.
BEGIN;
ALTER ROLE regress_carol NOLOGIN;
REASSIGN OWNED BY regress_both TO regress_carol;
ROLLBACK;
DO $$
BEGIN
	REASSIGN OWNED BY regress_bob TO regress_nologin;
	IF current_setting('server_version_num')::integer < 170000 THEN
		RAISE NOTICE 'it should have failed';
	END IF;
	REASSIGN OWNED BY regress_nologin TO regress_bob;
	RAISE NOTICE 'as it should be';
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	RAISE NOTICE '%', CASE WHEN current_setting('server_version_num')::integer < 170000 THEN 'as it should be' ELSE sqlerrm END;
END $$;

-- DROP OWNED: tasks and aliases go, those of others stay.
BEGIN;
SET LOCAL client_min_messages = error;
SET LOCAL ROLE regress_both;
DROP OWNED BY regress_alice, regress_both;
RESET ROLE;
SELECT owner, task_id FROM seen;
SELECT * FROM taskshed.callbacks ORDER BY owner, name;
ROLLBACK;
SELECT owner, count(*) FROM taskshed.tasks GROUP BY owner ORDER BY owner;
BEGIN;
DROP OWNED BY regress_alice RESTRICT;
SELECT owner, count(*) FROM taskshed.tasks GROUP BY owner ORDER BY owner;
ROLLBACK;
-- A transaction that does so to a role without tasks can be prepared.
BEGIN;
DROP OWNED BY regress_nologin;
REASSIGN OWNED BY regress_nologin TO regress_alice;
PREPARE TRANSACTION 'regress_taskshed';
ROLLBACK PREPARED 'regress_taskshed';

-- A role that was dropped: its tasks are shown with its OID, and superusers, and only they, can do something
-- about them.
SELECT oid AS bob FROM pg_roles WHERE rolname = 'regress_bob' \gset
SET client_min_messages = warning;
SELECT taskshed.remove_all_tasks('regress_alice');
DROP OWNED BY regress_alice, regress_bob, regress_both;
RESET client_min_messages;
GRANT USAGE ON SCHEMA taskshed TO regress_alice, regress_bob, regress_both;
SELECT taskshed.add_task('set_owner.nothing', '2100-01-01', task_id => id, owner => 'regress_bob', group_id => 'g')
FROM unnest('{a,b,c,d}'::text[]) id;
SET ROLE regress_bob;
SELECT taskshed.add_callback('alias', 'set_owner.nothing');
SELECT taskshed.add_task('alias', '2100-01-01', task_id => 'e');
RESET ROLE;
REVOKE ALL ON SCHEMA taskshed FROM regress_bob;
DROP ROLE regress_bob;
CREATE ROLE regress_bob LOGIN;
GRANT USAGE ON SCHEMA taskshed TO regress_bob;
GRANT regress_bob TO regress_both;
SELECT owner = :'bob' AS by_oid, task_id, callback FROM taskshed.tasks ORDER BY task_id;
SELECT owner = :'bob' AS by_oid, name, callback FROM taskshed.callbacks;
-- its successor has nothing of it
SELECT count(*) FROM taskshed.fetch_tasks(owner => 'regress_bob');
SET ROLE regress_bob;
SELECT count(*) FROM taskshed.tasks;
SELECT taskshed.remove_all_tasks();
-- For others there is no such role.
SELECT says('SELECT taskshed.fetch_task(''a'', %L)', :'bob');
SELECT says('SELECT taskshed.remove_all_tasks(%L)', :'bob');
SELECT says('SELECT taskshed.set_owner(''regress_bob'', owner => %L)', :'bob');
RESET ROLE;
-- A superuser can look at them, change them, give them away, and remove them
SELECT count(*) FROM taskshed.fetch_tasks(owner => :'bob');
SELECT (taskshed.fetch_task('a', :'bob')).task_id;
SELECT taskshed.pause_task('a', :'bob'), taskshed.resume_tasks(ARRAY['a'], owner => :'bob'), taskshed.retry_task('a', :'bob'),
	taskshed.cancel_task('a', :'bob'), taskshed.update_execution_time('a', '2100-01-02', :'bob');
SELECT taskshed.remove_task('a', :'bob'), taskshed.remove_tasks('{b}', owner => :'bob');
SELECT taskshed.set_owner('regress_alice', '{c,e}', owner => :'bob');
SELECT owner, task_id, callback, is_alias, agree FROM seen WHERE owner = 'regress_alice';
SELECT taskshed.remove_all_tasks(:'bob');
-- but not add to them, give it any, or call a role that exists so.
SELECT says('SELECT taskshed.add_task(''set_owner.nothing'', ''2100-01-01'', owner => %L)', :'bob');
SELECT says('SELECT taskshed.set_owner(%L, owner => ''regress_alice'')', :'bob');
SELECT says('SELECT taskshed.fetch_tasks(owner => %L)', oid::text) FROM pg_roles WHERE rolname = 'regress_alice';
CALL fails($$SELECT taskshed.fetch_tasks(owner => '')$$);
CALL fails($$SELECT taskshed.fetch_tasks(owner => '0')$$);
CALL fails($$SELECT taskshed.fetch_tasks(owner => '-1')$$);
CALL fails($$SELECT taskshed.fetch_tasks(owner => '4294967296')$$);
CALL fails($$SELECT taskshed.fetch_tasks(owner => '99999999999999999999999999')$$);
CALL fails($$SELECT taskshed.fetch_tasks(owner => '1e3')$$);
-- A role whose name is a number is that role.
CREATE ROLE "4000000000" LOGIN;
SELECT taskshed.add_task('set_owner.nothing', '2100-01-01', task_id => 'n', owner => '4000000000');
SELECT owner, task_id FROM taskshed.fetch_tasks(owner => '4000000000');
DROP OWNED BY "4000000000";
DROP ROLE "4000000000";
DELETE FROM _taskshed.callback;

SET client_min_messages = warning;
SELECT taskshed.remove_all_tasks('regress_alice');
SELECT count(*) FROM taskshed.tasks;
RESET search_path;
DROP SCHEMA set_owner CASCADE;
DROP OWNED BY regress_alice, regress_bob, regress_carol, regress_both, regress_nologin;
DROP ROLE regress_alice, regress_bob, regress_carol, regress_both, regress_nologin;
