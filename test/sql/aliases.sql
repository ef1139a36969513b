-- Aliases: names of a role's own for callbacks, the callback map of the original.
SET timezone = 'UTC';
SET datestyle = 'ISO';
\pset null '(null)'

CREATE ROLE regress_alice LOGIN;
CREATE ROLE regress_bob LOGIN;
GRANT USAGE ON SCHEMA taskshed TO regress_alice, regress_bob;
CREATE SCHEMA aliases;
GRANT USAGE ON SCHEMA aliases TO PUBLIC;
SET search_path = aliases;
CREATE FUNCTION one(a integer DEFAULT 0) RETURNS text LANGUAGE sql AS $$SELECT 'one ' || a$$;
CREATE FUNCTION two(a integer DEFAULT 0, b integer DEFAULT 0) RETURNS text LANGUAGE sql AS $$SELECT 'two ' || a || ' ' || b$$;
CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE AGGREGATE total(n integer) (SFUNC = int4pl, STYPE = integer);

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

SET ROLE regress_alice;
SELECT taskshed.add_callback('send', 'one');
SELECT taskshed.add_callback('It''s "odd".()', 'aliases.two');
SELECT * FROM taskshed.callbacks ORDER BY name;

-- Tasks name it, and keep the name.
SELECT taskshed.add_task('send', '2100-01-01', '{"a": 1}', task_id => 'x');
SELECT taskshed.add_task('It''s "odd".()', '2100-01-02', '{"a": 1, "b": 2}', task_id => 'y');
SELECT task_id, callback, taskshed.try_task(task_id) FROM taskshed.fetch_tasks();
-- its arguments are checked as those of the function
CALL fails($$SELECT taskshed.add_task('send', '2100-01-01', '{"b": 1}')$$);

-- A taken name; what it stands for changes only on purpose, and the tasks follow.
CALL fails($$SELECT taskshed.add_callback('send', 'two')$$);
CALL fails($$SELECT taskshed.add_callback('send', 'two', false)$$);
SELECT taskshed.try_task('x');
SELECT taskshed.add_callback('send', 'two', replace_existing => true);
SELECT task_id, callback, taskshed.try_task(task_id) FROM taskshed.fetch_tasks();

-- It wins over a function of that name, unless that is named with its schema.
SELECT taskshed.add_callback('one', 'two');
SELECT taskshed.try_task(taskshed.add_task('one', '2100-01-01', task_id => 'z'));
SELECT taskshed.try_task(taskshed.add_task('aliases.one', '2100-01-01', task_id => 'z'));
SELECT taskshed.remove_callback('one');
SELECT taskshed.try_task(taskshed.add_task('one', '2100-01-01', task_id => 'z'));
SELECT task_id, callback FROM taskshed.fetch_task('z');

-- An alias that is gone
SELECT taskshed.remove_callback('send');
SELECT taskshed.remove_callback('send');
SELECT taskshed.remove_callback(NULL);
CALL fails($$SELECT taskshed.try_task('x')$$);
CALL fails($$SELECT taskshed.add_task('send', '2100-01-01')$$);
SELECT taskshed.add_callback('send', 'one');
SELECT taskshed.try_task('x');
-- as one whose function is
BEGIN;
RESET ROLE;
DROP FUNCTION one;
SET ROLE regress_alice;
CALL fails($$SELECT taskshed.try_task('x')$$);
ROLLBACK;

-- Each role has its own.
SET ROLE regress_bob;
SELECT * FROM taskshed.callbacks;
CALL fails($$SELECT taskshed.add_task('send', '2100-01-01')$$);
SELECT taskshed.remove_callback('send');
SELECT taskshed.add_callback('send', 'two');
SELECT taskshed.try_task(taskshed.add_task('send', '2100-01-01'));
SELECT * FROM taskshed.callbacks;
SELECT taskshed.remove_all_tasks();
RESET ROLE;
SELECT owner, name, callback FROM taskshed.callbacks ORDER BY owner, name;
-- A task's owner's aliases count.
SELECT taskshed.add_task('send', '2100-01-03', '{"a": 3}', task_id => 'for alice', owner => 'regress_alice');
SET ROLE regress_alice;
SELECT taskshed.try_task('for alice');

-- What cannot be one
CALL fails($$SELECT taskshed.add_callback(NULL, 'one')$$);
CALL fails($$SELECT taskshed.add_callback('x', NULL)$$);
CALL fails($$SELECT taskshed.add_callback('x')$$);
CALL fails($$SELECT taskshed.add_callback('', 'one')$$);
CALL fails($$SELECT taskshed.add_callback(repeat('x', 256), 'one')$$);
CALL fails($$SELECT taskshed.add_callback('x', 'no_such_function')$$);
CALL fails($$SELECT taskshed.add_callback('x', 'a.b.c')$$);
CALL fails($$SELECT taskshed.add_callback('x', 'one()')$$);
CALL fails($$SELECT taskshed.add_callback('x', 'changed')$$);
CALL fails($$SELECT taskshed.add_callback('x', 'total')$$);
CALL fails($$INSERT INTO _taskshed.callback SELECT * FROM _taskshed.callback$$);
BEGIN READ ONLY;
CALL fails($$SELECT taskshed.add_callback('x', 'one')$$);
CALL fails($$SELECT taskshed.remove_callback('send')$$);
ROLLBACK;
BEGIN;
SELECT taskshed.add_callback('rolled back', 'one');
ROLLBACK;
SELECT count(*) FROM taskshed.callbacks WHERE name IN ('x', 'rolled back');

SELECT taskshed.remove_all_tasks();
SELECT taskshed.remove_callback(name) FROM taskshed.callbacks;
SET ROLE regress_bob;
SELECT taskshed.remove_callback('send');
RESET ROLE;
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA aliases CASCADE;
REVOKE ALL ON SCHEMA taskshed FROM regress_alice, regress_bob;
DROP ROLE regress_alice, regress_bob;
