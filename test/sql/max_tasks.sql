-- taskshed.max_tasks_per_role: how many tasks a role may have.
--
-- All tasks are far ahead: none of them runs.
SET timezone = 'UTC';
\pset null '(null)'
\set super :USER

CREATE ROLE regress_tenant LOGIN;
CREATE ROLE regress_other LOGIN;
CREATE ROLE regress_super SUPERUSER LOGIN;
CREATE SCHEMA max_tasks;
GRANT USAGE ON SCHEMA taskshed, max_tasks TO regress_tenant, regress_other;
CREATE FUNCTION max_tasks.nothing() RETURNS void LANGUAGE sql AS '';

CREATE PROCEDURE max_tasks.fails(command text) LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
	context text;
BEGIN
	EXECUTE command;
	RAISE NOTICE 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT,
		detail = PG_EXCEPTION_DETAIL, context = PG_EXCEPTION_CONTEXT;
	RAISE NOTICE '% %', state, message || coalesce(E'\nDETAIL:  ' || substring(detail FROM 'The limit is.*'), '') || coalesce(E'\nHINT:  ' || nullif(hint, ''), '') ||
		coalesce(E'\nCONTEXT:  ' || substring(context FROM 'element \d+ of tasks'), '');
END $$;
CREATE FUNCTION max_tasks.add(id text) RETURNS text LANGUAGE sql AS $$
	SELECT taskshed.add_task('max_tasks.nothing', '2100-01-01', task_id => id)
$$;
CREATE FUNCTION max_tasks.many(VARIADIC ids text[]) RETURNS text[] LANGUAGE sql AS $$
	SELECT taskshed.add_tasks(jsonb_agg(jsonb_build_object('callback', 'max_tasks.nothing', 'run_at', '2100-01-01', 'task_id', id)))
	FROM unnest(ids) id
$$;
SET search_path = max_tasks, pg_catalog;

-- Tasks from before there was a limit count.
SET ROLE regress_tenant;
SELECT add('a'), add('b');
RESET ROLE;
SET taskshed.max_tasks_per_role = 3;
SET ROLE regress_tenant;
SELECT add('c');
CALL fails($$SELECT add('d')$$);
CALL fails($$SELECT many('d')$$);
CALL fails($$SELECT taskshed.add_task('max_tasks.nothing', '2100-01-01')$$);
CALL fails($$SELECT taskshed.add_task('max_tasks.nothing', '2100-01-01', task_id => 'd', replace_existing => false)$$);
-- Failed and paused ones count,
SELECT taskshed.pause_task('a');
RESET ROLE;
UPDATE _taskshed.alarm SET failed_at = now() FROM _taskshed.task t WHERE t.id = alarm.id AND t.task_id = 'b';
SET ROLE regress_tenant;
CALL fails($$SELECT add('d')$$);
-- replacing is free,
SELECT add('a'), many('b', 'c'), taskshed.add_task('max_tasks.nothing', '2100-01-02', task_id => 'a', group_id => 'g', replace_existing => false);
SELECT taskshed.add_task('max_tasks.nothing', '2100-01-02', task_id => 'a', group_id => 'g', every => '1 day');
CALL fails($$SELECT many('a', 'b', 'c', 'd')$$);
-- and what is removed does not count any more.
SELECT taskshed.remove_task('a'), add('d');
CALL fails($$SELECT add('e')$$);
BEGIN;
SELECT taskshed.remove_tasks('{b,c}'), many('e', 'f');
CALL fails($$SELECT add('g')$$);
SAVEPOINT s;
SELECT taskshed.remove_task('e'), add('g');
ROLLBACK TO s;
CALL fails($$SELECT add('g')$$);
ROLLBACK;
SELECT array_agg(task_id ORDER BY task_id) FROM taskshed.tasks;
SELECT taskshed.remove_all_tasks();
-- Nor does what was rolled back.
BEGIN;
SELECT many('a', 'b', 'c');
ROLLBACK;
SELECT many('a', 'b', 'c');
SELECT taskshed.remove_all_tasks();
-- All or none
CALL fails($$SELECT many('a', 'b', 'c', 'd')$$);
CALL fails($$SELECT count(add(n::text)) FROM generate_series(1, 4) n$$);
SELECT count(*) FROM taskshed.tasks;
CREATE TEMPORARY TABLE added (task_id text);
INSERT INTO added SELECT add(n::text) FROM generate_series(1, 3) n;
SELECT * FROM added;
CALL fails($$INSERT INTO added SELECT add(n::text) FROM generate_series(3, 4) n$$);
SELECT count(*) FROM taskshed.tasks;
DROP TABLE added;

-- Each role has its own limit; who schedules for it is bound by it too. Superusers' tasks are not limited.
SET ROLE regress_other;
SELECT many('a', 'b', 'c');
RESET ROLE;
CALL fails($$SELECT taskshed.add_task('max_tasks.nothing', '2100-01-01', owner => 'regress_tenant')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "max_tasks.nothing", "owner": "regress_super", "task_id": "s"},
	{"callback": "max_tasks.nothing", "owner": "regress_tenant", "task_id": "t"}]')$$);
SET ROLE regress_super;
SELECT many('a', 'b', 'c', 'd');
RESET ROLE;
-- Tasks that are given to a role
CALL fails($$SELECT taskshed.set_owner('regress_tenant', '{a}', owner => 'regress_other')$$);
CALL fails($$REASSIGN OWNED BY regress_other TO regress_tenant$$);
SELECT taskshed.set_owner('regress_super', '{1,2,3}', owner => 'regress_tenant');
SELECT taskshed.set_owner('regress_tenant', '{a,b}', owner => 'regress_other');
CALL fails($$SELECT taskshed.set_owner('regress_tenant', '{1,2}', owner => 'regress_super')$$);
SELECT taskshed.set_owner('regress_tenant', '{1}', owner => 'regress_super');
SELECT owner, array_agg(task_id ORDER BY task_id) FROM taskshed.tasks GROUP BY owner ORDER BY owner;
SELECT taskshed.remove_all_tasks('regress_super'), taskshed.remove_all_tasks('regress_other'), taskshed.remove_all_tasks('regress_tenant');

-- What is added without a limit, while others have one, counts for those.
SET taskshed.max_tasks_per_role = 3;
SELECT taskshed.add_task('max_tasks.nothing', '2100-01-01', task_id => 'a', owner => 'regress_tenant');
SET taskshed.max_tasks_per_role = 0;
SELECT taskshed.add_task('max_tasks.nothing', '2100-01-01', task_id => 'b', owner => 'regress_tenant');
SELECT taskshed.add_task('max_tasks.nothing', '2100-01-01', task_id => 'c', owner => 'regress_super');
SELECT taskshed.set_owner('regress_tenant', owner => 'regress_super');
SET taskshed.max_tasks_per_role = 3;
CALL fails($$SELECT taskshed.add_task('max_tasks.nothing', '2100-01-01', task_id => 'd', owner => 'regress_tenant')$$);
-- and what was added while the role was a superuser, too
SELECT taskshed.remove_task('a', 'regress_tenant');
ALTER ROLE regress_tenant SUPERUSER;
SELECT taskshed.add_task('max_tasks.nothing', '2100-01-01', task_id => n::text, owner => 'regress_tenant') FROM generate_series(1, 4) n;
ALTER ROLE regress_tenant NOSUPERUSER;
CALL fails($$SELECT taskshed.add_task('max_tasks.nothing', '2100-01-01', task_id => 'd', owner => 'regress_tenant')$$);
SELECT taskshed.add_task('max_tasks.nothing', '2100-01-01', task_id => '1', owner => 'regress_tenant');
SELECT taskshed.remove_all_tasks('regress_tenant');
RESET taskshed.max_tasks_per_role;

-- A role with a limit of its own, which is not its to change
ALTER ROLE regress_tenant SET taskshed.max_tasks_per_role = 1;
\connect - regress_tenant
SELECT max_tasks.add('a');
CALL max_tasks.fails($$SELECT max_tasks.add('b')$$);
CALL max_tasks.fails($$SET taskshed.max_tasks_per_role = 2$$);
CALL max_tasks.fails($$SELECT set_config('taskshed.max_tasks_per_role', '2', true)$$);
CALL max_tasks.fails($$ALTER ROLE regress_tenant SET taskshed.max_tasks_per_role = 2$$);
CREATE FUNCTION pg_temp.more() RETURNS text SET taskshed.max_tasks_per_role = 2 LANGUAGE sql AS $$ SELECT max_tasks.add('b') $$;
\connect - regress_other
SELECT max_tasks.many('a', 'b');
\connect - :super
SELECT owner, array_agg(task_id ORDER BY task_id) FROM taskshed.tasks GROUP BY owner ORDER BY owner;

SET client_min_messages = warning;
DROP SCHEMA max_tasks CASCADE;
DROP OWNED BY regress_tenant, regress_other, regress_super;
DROP ROLE regress_tenant, regress_other, regress_super;
SELECT count(*) FROM taskshed.tasks;
