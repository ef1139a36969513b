-- What each kind of role may do with each object of the extension, and what it gets to know of others' tasks.
--
-- The tables below are made from the catalogs: an object that is new here, or a privilege that has changed,
-- shows as a difference, and has to be decided on.
SET timezone = 'UTC';
SET datestyle = 'ISO';
\pset null '(null)'

CREATE ROLE regress_outsider LOGIN;
CREATE ROLE regress_user LOGIN;
CREATE ROLE regress_stranger LOGIN;
CREATE ROLE regress_member LOGIN IN ROLE regress_user;
CREATE ROLE regress_stats LOGIN IN ROLE pg_read_all_stats;
GRANT USAGE ON SCHEMA taskshed TO regress_user, regress_stranger, regress_member, regress_stats;

-- The kinds of role: outsider has no USAGE on the schema, which is what PUBLIC has; user has it, and nothing
-- else; member is a member of user, whose tasks it can see and change; stats is one of pg_read_all_stats.
CREATE TEMPORARY TABLE kind (kind text, role oid);
INSERT INTO kind
SELECT kind, to_regrole('regress_' || kind) FROM unnest('{outsider,user,member,stats}'::text[]) kind
UNION ALL SELECT 'superuser', current_user::regrole;

-- Each object, and each privilege that is known for its kind. (MAINTAIN came with 17.)
CREATE TEMPORARY TABLE privilege AS
SELECT 'schema' AS type, schema AS object, schema, kind, privilege,
	has_schema_privilege(role, schema, privilege) AS has
FROM kind, unnest('{taskshed,_taskshed}'::text[]) schema, unnest('{USAGE,CREATE}'::text[]) privilege
UNION ALL
SELECT CASE relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' ELSE relkind::text END, relname, relnamespace::regnamespace::text, kind, privilege,
	has_table_privilege(role, c.oid, privilege) OR
	privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege(role, c.oid, privilege)
FROM kind, pg_class c, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) privilege
WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND relkind NOT IN ('i', 'S', 'c')
UNION ALL
SELECT 'sequence', relname, relnamespace::regnamespace::text, kind, privilege, has_sequence_privilege(role, c.oid, privilege)
FROM kind, pg_class c, unnest('{USAGE,SELECT,UPDATE}'::text[]) privilege
WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND relkind = 'S'
UNION ALL
SELECT CASE prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, proname, 'taskshed', kind, 'EXECUTE',
	has_function_privilege(role, p.oid, 'EXECUTE')
FROM kind, pg_proc p
WHERE pronamespace = 'taskshed'::regnamespace
UNION ALL
-- (tables and views have row types, which are worth as much as the others)
SELECT 'type', typname, typnamespace::regnamespace::text, kind, 'USAGE', has_type_privilege(role, t.oid, 'USAGE')
FROM kind, pg_type t
WHERE typnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND typcategory <> 'A' AND
	NOT EXISTS (SELECT FROM pg_class WHERE oid = typrelid AND relkind <> 'c');

-- Nothing else is in the schemas.
SELECT count(*) FROM pg_operator WHERE oprnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace);

-- What is of no use without USAGE on the schema is not listed. "all" is all that there is for this kind of object.
\pset format unaligned
\pset fieldsep ': '
\pset footer off
WITH useful AS (
	SELECT p.*, has AND (type = 'schema' OR has_schema_privilege(role, schema, 'USAGE')) AS may
	FROM privilege p JOIN kind USING (kind)
), by_kind AS (
	SELECT type, object, kind, CASE WHEN bool_and(may) THEN 'all' WHEN NOT bool_or(may) THEN '-' ELSE
		string_agg(privilege, ' ' ORDER BY privilege) FILTER (WHERE may) END AS privileges
	FROM useful GROUP BY type, object, kind
), by_object AS (
	SELECT type, object, string_agg(kind || ' ' || privileges, ', '
		ORDER BY array_position('{outsider,user,member,stats,superuser}', kind)) AS privileges
	FROM by_kind GROUP BY type, object
)
SELECT type, privileges, E'\n  ' || string_agg(object, E'\n  ' ORDER BY object COLLATE "C") AS objects
FROM by_object GROUP BY type, privileges ORDER BY type COLLATE "C", privileges COLLATE "C";
\pset format aligned
\pset footer on

-- Only superusers own anything of it, could replace a function, or give privileges to others.
SELECT classid::regclass, objid FROM pg_shdepend
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND refclassid = 'pg_authid'::regclass AND
	deptype = 'o' AND (classid, objid) IN (SELECT classid, objid FROM pg_depend
		WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND
			refobjid = (SELECT oid FROM pg_extension WHERE extname = 'taskshed'));
SELECT relname, privilege_type FROM pg_class, aclexplode(relacl)
WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND grantee <> relowner AND is_grantable;

-- Whoever can read a view reads it through a barrier, or all of its rows are the reader's.
SELECT relname, reloptions FROM pg_class WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND relkind = 'v' ORDER BY 1;


-- What each kind gets to know of tasks that are not its own. All of them are far ahead. What
-- looks as if some had run is written by hand.
CREATE SCHEMA privileges;
GRANT USAGE, CREATE ON SCHEMA privileges TO PUBLIC;
SET search_path = privileges;
CREATE FUNCTION nothing(n integer DEFAULT 0) RETURNS void LANGUAGE sql AS '';
SET ROLE regress_user;
SELECT count(taskshed.add_task('nothing', '2100-01-02', '{"n": 1}', task_id => 'of user ' || n, group_id => 'g'))
FROM generate_series(1, 3) n;
SELECT taskshed.add_callback('alias', 'nothing');
SET ROLE regress_stranger;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'of stranger');
RESET ROLE;
UPDATE _taskshed.alarm a SET failed_at = now(), last_error = 'a secret' FROM _taskshed.task t
WHERE t.id = a.id AND t.task_id = 'of user 3';
INSERT INTO _taskshed.run_0 (run_id, scheduled_at, finished_at, owner, attempt, status, task_id, callback, result)
VALUES (1, now(), now(), 'regress_user'::regrole, 1, 'succeeded', 'of user 1', 'privileges.nothing', 'a secret');


-- (Nothing is known of what the scheduler does before it has started.)
DO $$
BEGIN
	FOR i IN 1..6000 LOOP
		EXIT WHEN (SELECT state = 'active' FROM taskshed.status WHERE database = current_database());
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;

CREATE FUNCTION known(OUT tasks bigint, OUT kwargs bigint, OUT errors bigint, OUT runs bigint, OUT results bigint, OUT callbacks bigint,
	OUT next_wakeup date, OUT running bigint)
LANGUAGE sql AS $$
	SELECT count(*), count(kwargs), count(last_error), (SELECT count(*) FROM taskshed.runs WHERE task_id ~ '^of '),
		(SELECT count(result) FROM taskshed.runs WHERE task_id ~ '^of '), (SELECT count(*) FROM taskshed.callbacks WHERE name = 'alias'),
		taskshed.next_wakeup(), (SELECT count(*) FROM taskshed._running())
	FROM taskshed.tasks WHERE task_id ~ '^of '
$$;
CREATE FUNCTION status_known(OUT state text, OUT pid boolean, OUT workers boolean, OUT running integer, OUT due integer, OUT oldest_due boolean,
	OUT failed integer, OUT next_wakeup date, OUT runs_ok boolean, OUT runs_failed boolean, OUT message text)
LANGUAGE sql AS $$
	SELECT state, scheduler_pid IS NOT NULL, workers > 0, running, due, oldest_due IS NOT NULL, failed, next_wakeup,
		runs_ok IS NOT NULL, runs_failed IS NOT NULL, message
	FROM taskshed.status WHERE database = current_database()
$$;
SET ROLE regress_user;
SELECT * FROM known();
SELECT * FROM status_known();
SET ROLE regress_member;
SELECT * FROM known();
SELECT * FROM status_known();
SET ROLE regress_stranger;
SELECT * FROM known();
SELECT * FROM status_known();
SET ROLE regress_stats;
SELECT * FROM known();
SELECT failed >= 1 AS failed, runs_ok IS NOT NULL AS runs_ok FROM taskshed.status WHERE database = current_database();
RESET ROLE;
SELECT tasks, kwargs, errors, runs, results, callbacks FROM known();
-- The function under the view says no more than the view does, nor does a view on it of somebody who sees more.
SET ROLE regress_stranger;
SELECT workers, running, due, oldest_due, failed, runs_ok, runs_failed, last_failure_at, message FROM taskshed._status();
SET ROLE regress_stats;
CREATE VIEW status_of_stats AS SELECT * FROM taskshed.status;
CREATE VIEW tasks_of_stats AS SELECT * FROM taskshed.tasks;
GRANT SELECT ON status_of_stats, tasks_of_stats TO PUBLIC;
SET ROLE regress_stranger;
SELECT failed, runs_ok FROM status_of_stats;
SELECT task_id FROM tasks_of_stats;
RESET ROLE;

-- What a stranger can find out by trying: no function, operator or join is let in front of the barrier.
SET ROLE regress_stranger;
CREATE FUNCTION leak(x text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$BEGIN RAISE NOTICE '%', x; RETURN true; END$$;
CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = textne, RESTRICT = eqsel);
CREATE VIEW my_tasks WITH (security_barrier = false) AS SELECT * FROM taskshed.tasks WHERE leak(task_id);
SELECT count(*) FROM my_tasks WHERE leak(kwargs::text) AND task_id === 'x';
SELECT count(*) FROM taskshed.runs WHERE leak(task_id);
SELECT count(*) FROM taskshed.callbacks WHERE leak(name);
SELECT count(*) FROM (VALUES ('of user 1')) v (id), LATERAL (SELECT * FROM taskshed.tasks t WHERE t.task_id = v.id AND leak(t.task_id)) t;
-- A value that cannot be converted or divided tells nothing either: the row is not looked at.
SELECT count(*) FROM taskshed.tasks WHERE 1 / length(replace(task_id, 'of user 1', '')) > 0;
SELECT count(*) FROM taskshed.tasks WHERE (kwargs->>'n')::date IS NOT NULL;
-- Statistics of the columns are for those who may read them.
RESET ROLE;
ANALYZE _taskshed.task, _taskshed.alarm;
SET ROLE regress_stranger;
SELECT count(*) FROM pg_stats WHERE schemaname = '_taskshed';
SELECT count(*) FROM pg_sequences WHERE schemaname = '_taskshed' AND last_value IS NOT NULL;
\set VERBOSITY terse
SELECT currval('_taskshed.task_seq');
-- A task_id, an alias or a group of somebody else is as good as none.
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'of user 1'), taskshed.add_task('nothing', '2100-01-01', task_id => 'of user 2', replace_existing => false);
SELECT taskshed.add_callback('alias', 'privileges.nothing');
SELECT taskshed.remove_callback('alias'), taskshed.remove_callback('alias');
SELECT taskshed.remove_tasks(group_id => 'g'), taskshed.remove_tasks('{of user 1,of user 2}'), taskshed.remove_task('of user 1');
SELECT taskshed.cancel_task('of user 1'), taskshed.retry_task('of user 3'), taskshed.run_tasks('{of user 1}'), taskshed.pause_tasks(group_id => 'g');
SELECT count(*) FROM taskshed.fetch_tasks('{of user 1}'), taskshed.fetch_task('of user 1') t WHERE t IS NOT NULL;
SELECT taskshed.try_task('of user 1');
-- An alias of somebody else is no alias.
SELECT taskshed.add_task('alias', '2100-01-01');
\set VERBOSITY default
SELECT taskshed.remove_all_tasks();
RESET ROLE;
SELECT count(*) FROM taskshed.tasks WHERE owner = 'regress_user';


-- Called by hand, with nothing but NULL, each function does something sensible or raises an error of its own: for those who
-- can call it, and for a superuser.
CREATE PROCEDURE call_all() LANGUAGE plpgsql AS $$
DECLARE
	f record;
	outcome text;
BEGIN
	FOR f IN
		SELECT p.oid::regproc AS name, prokind, coalesce((SELECT string_agg('NULL::' || t::regtype, ', ' ORDER BY i)
			FROM unnest(proargtypes) WITH ORDINALITY a (t, i)), '') AS arguments
		FROM pg_catalog.pg_proc p WHERE pronamespace = 'taskshed'::regnamespace AND has_function_privilege(p.oid, 'EXECUTE')
		ORDER BY proname COLLATE "C"
	LOOP
		BEGIN
			EXECUTE format(CASE f.prokind WHEN 'p' THEN 'CALL %s(%s)' ELSE 'SELECT FROM %s(%s)' END, f.name, f.arguments);
			outcome := 'ok';
		EXCEPTION WHEN OTHERS THEN
			outcome := SQLSTATE || ' ' || SQLERRM;
		END;
		RAISE INFO '%: %', f.name, outcome;
	END LOOP;
END $$;
SET ROLE regress_stranger;
CALL call_all();
RESET ROLE;
CALL call_all();
-- as set-returning functions elsewhere, and in a trigger of somebody's own
SELECT count(*) FROM (SELECT taskshed._running(), taskshed._status(), taskshed.fetch_tasks(owner => 'regress_stranger')) x;
SELECT count(*) > 0 AS more FROM ROWS FROM (taskshed._status(), generate_series(1, 3)) WITH ORDINALITY x;
CREATE TABLE other (n integer);
CREATE TRIGGER t AFTER INSERT ON other FOR EACH ROW EXECUTE FUNCTION taskshed._alarm_changed();
INSERT INTO other VALUES (1);
CREATE TRIGGER t2 AFTER DELETE ON other FOR EACH ROW EXECUTE FUNCTION taskshed._alarm_changed();
DELETE FROM other;

-- Clean up.
SELECT taskshed.remove_all_tasks('regress_user');
SELECT taskshed.remove_all_tasks();
DELETE FROM _taskshed.run_0 WHERE run_id = 1;
DELETE FROM _taskshed.callback WHERE owner = 'regress_user'::regrole;
SET client_min_messages = warning;
DROP SCHEMA privileges CASCADE;
DROP OWNED BY regress_user, regress_stranger, regress_member, regress_stats;
DROP ROLE regress_outsider, regress_user, regress_stranger, regress_member, regress_stats;
