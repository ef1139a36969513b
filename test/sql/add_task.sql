-- add_task: its parameters, their defaults and checks, and what replacing a task means.
--
-- Tasks are far ahead, or paused, or in a transaction that rolls back: none of them runs.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
SET client_min_messages = notice;
\pset null '(null)'

CREATE SCHEMA add_task;
SET search_path = add_task;

CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION add(a integer, b integer) RETURNS integer LANGUAGE sql AS 'SELECT a + b';

-- What an error says, with our context only, and without the name of the role that runs the tests
CREATE PROCEDURE fails(command text) LANGUAGE plpgsql AS $$
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
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
	context := substring(context FROM 'argument "[^(]* \([^)]*\) of callback [^(]*');
	RAISE NOTICE '% %', state, replace(message, '"' || current_user || '"', '(me)') || coalesce(E'\nDETAIL:  ' || nullif(detail, ''), '') ||
		coalesce(E'\nHINT:  ' || nullif(hint, ''), '') || coalesce(E'\nCONTEXT:  ' || context, '');
END $$;

-- All of a task but its times, for comparisons
CREATE FUNCTION definition(id text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_strip_nulls(to_jsonb(t) - '{owner,task_id,run_at,paused_at,created_at}'::text[])
	FROM taskshed.tasks t WHERE task_id = id AND owner = current_user
$$;


-- The least: a callback.  It is due at once, and all else has its default.
BEGIN;
SELECT taskshed.add_task('nothing') AS least \gset
\x on
SELECT owner = current_user AS mine, task_id ~ '^[0-9a-f]{32}$' AS generated, group_id, callback, kwargs,
	run_type, run_at BETWEEN now() AND clock_timestamp() AS runs_now, every, schedule, timezone, until, max_runs,
	catch_up, start_within, timeout, max_attempts, retry_delay, retry_backoff, retry_max_delay, history, state,
	paused_at, attempt, running_since, worker_pid, last_run_at, last_status, last_sqlstate, last_error,
	run_count, failures_in_row, created_at BETWEEN now() AND clock_timestamp() AS created_now
FROM taskshed.tasks;
\x off
-- NULL means the default, for each parameter.
SELECT taskshed.add_task(callback => 'nothing', run_at => NULL, kwargs => NULL, run_type => NULL, every => NULL,
	task_id => NULL, group_id => NULL, paused => NULL, catch_up => NULL, replace_existing => NULL,
	schedule => NULL, timezone => NULL, until => NULL, max_runs => NULL, start_within => NULL, timeout => NULL,
	max_attempts => NULL, retry_delay => NULL, retry_backoff => NULL, retry_max_delay => NULL, history => NULL,
	owner => NULL, validate => NULL) AS nulls \gset
SELECT :'nulls' ~ '^[0-9a-f]{32}$' AS generated, definition(:'nulls') = definition(:'least') AS same,
	run_at BETWEEN now() AND clock_timestamp() AS runs_now
FROM taskshed.fetch_task(:'nulls');
-- A prepared statement whose parameters are all NULL, as a driver sends it
PREPARE driver(text, timestamptz, jsonb, text, interval, text, text, boolean) AS
SELECT taskshed.add_task($1, $2, $3, $4, $5, $6, $7, $8) IS NOT NULL AS added;
EXECUTE driver('nothing', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
ROLLBACK;

-- The ids that are generated differ.
BEGIN;
SELECT count(DISTINCT taskshed.add_task('nothing')) FROM generate_series(1, 1000);
SELECT count(*) FROM taskshed.tasks;
ROLLBACK;

-- Every parameter that there is so far
SELECT taskshed.add_task(callback => 'add', run_at => '2100-01-01 10:00 America/New_York', kwargs => '{"b": 2, "a": 1}',
	run_type => 'recurring', every => '1 mon 2 days 03:04:05.678', task_id => 'every parameter',
	group_id => 'a group', paused => true, catch_up => 'all', replace_existing => false,
	timezone => 'Europe/Berlin', owner => current_user, validate => true);
\x on
SELECT task_id, group_id, callback, kwargs, run_type, run_at, every, timezone, catch_up, state,
	paused_at = created_at AS paused_from_the_start
FROM taskshed.tasks;
\x off

-- By position, up to replace_existing
SELECT taskshed.add_task('add', '2100-01-01', '{"a": 1, "b": 2}', 'recurring', '1 day', 'by position', 'group 2',
	false, 'skip', true);
SELECT group_id, callback, run_at, kwargs, run_type, every, catch_up, state FROM taskshed.fetch_task('by position');

-- run_type follows from every, or agrees with it.
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'once');
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'once too', run_type => 'once');
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'recurring', every => '1 hour');
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'recurring too', every => '1 hour', run_type => 'recurring');
SELECT task_id, run_type, every FROM taskshed.tasks WHERE callback = 'add_task.nothing' ORDER BY task_id;
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', run_type => 'once', every => '1 hour')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', run_type => 'Recurring', every => '1 hour')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', run_type => '')$$);

SELECT taskshed.remove_all_tasks();


-- A time carries its zone; that it is in the past does not matter to add_task.
BEGIN;
SELECT taskshed.add_task('nothing', '2025-03-14 10:00 America/New_York', task_id => 'New York');
SELECT taskshed.add_task('nothing', '2100-07-01 10:00+02', task_id => 'offset');
SET LOCAL timezone = 'Asia/Kathmandu';
SELECT taskshed.add_task('nothing', '2100-01-01 10:00', task_id => 'session');
SET LOCAL timezone = 'UTC';
SELECT task_id, run_at, timezone, state FROM taskshed.fetch_tasks();
ROLLBACK;
CALL fails($$SELECT taskshed.add_task('nothing', 'infinity')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '-infinity')$$);

-- The stored zone is the session's or the one given, by its proper name.
BEGIN;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'lower case', timezone => 'europe/berlin');
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'POSIX', timezone => 'EST5EDT');
SET LOCAL timezone = 'America/Sao_Paulo';
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'session');
-- an offset has no name of its own; what is stored must mean the same to the worker
SET LOCAL TIME ZONE 5.5;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'session offset');
SET LOCAL timezone = 'UTC';
SELECT task_id, timezone,
	extract(epoch FROM timestamp '2100-01-01' - timestamptz '2100-01-01 UTC' AT TIME ZONE timezone) / 3600 < 0 AS is_east
FROM taskshed.tasks ORDER BY task_id;
ROLLBACK;
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', timezone => 'Europe/Bielefeld')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', timezone => '')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', timezone => '../../../etc/passwd')$$);

-- catch_up
SELECT catch_up, taskshed.add_task('nothing', '2100-01-01', task_id => 'catch up', catch_up => catch_up),
	(taskshed.fetch_task('catch up')).catch_up AS stored
FROM unnest(ARRAY['skip', 'all', 'coalesce', NULL]) catch_up;
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', catch_up => 'never')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', catch_up => '')$$);

-- Ids have 1 to 255 characters (not bytes) of any kind.
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => '')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => repeat('x', 256))$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', group_id => '')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', group_id => repeat('x', 256))$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', task_id => repeat(chr(252), 256))$$);
SELECT length(taskshed.add_task('nothing', '2100-01-01', task_id => repeat(chr(252), 255), group_id => repeat(chr(252), 255)));
SELECT length(task_id), length(group_id) FROM taskshed.fetch_task(repeat(chr(252), 255));
SELECT taskshed.remove_all_tasks();

-- Ids that would hurt somebody who is careless with them
CREATE TABLE hostile (n serial, id text);
INSERT INTO hostile (id) VALUES
	('it''s'), ('"quoted"'), ('back\slash'), ('$1'), ('%s%n%d'), (' '), (' padded '), ('padded'), ('Case'), ('case'),
	('''; DROP TABLE add_task.hostile; --'), (E'new\nline'), (E'\t'), ('{a,b}'), ('NULL'), ('(x,y)'), ('%'), ('_');
SELECT count(*), bool_and(taskshed.add_task('nothing', '2100-01-01', task_id => id, group_id => id) = id) AS same FROM hostile;
SELECT bool_and((taskshed.fetch_task(id)).task_id = id) AS fetched,
	bool_and(taskshed.pause_task(id)) AS paused,
	bool_and(taskshed.resume_tasks(group_id => id) = 1) AS resumed,
	bool_and(taskshed.update_execution_time(id, '2100-01-02')) AS moved,
	bool_and(taskshed.try_task(id) IS NULL) AS tried,
	bool_and(taskshed.remove_tasks(ARRAY[id]) = 1) AS removed
FROM hostile;
CALL fails($$SELECT taskshed.try_task('%s%n "); DROP')$$);

-- The role that owns it
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', owner => 'no such role')$$);


-- kwargs: an object, whose keys are the callback's arguments.
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', '[1, 2]')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', '1')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', 'null')$$);
CALL fails($$SELECT taskshed.add_task('add', '2100-01-01', to_jsonb('{"a": 1, "b": 2}'::text))$$);
CALL fails($$SELECT taskshed.add_task('add', '2100-01-01', '{"a": 1}')$$);
CALL fails($$SELECT taskshed.add_task('add', '2100-01-01')$$);
CALL fails($$SELECT taskshed.add_task('add', '2100-01-01', '{"a": 1, "b": 2, "c": 3}')$$);
CALL fails($$SELECT taskshed.add_task('add', '2100-01-01', '{"a": 1, "B": 2}')$$);
CALL fails($$SELECT taskshed.add_task('add', '2100-01-01', '{"a": 1, "": 2}')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', '{"": 2}')$$);

-- Values must suit their arguments' types now, not only when the task runs.
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE TYPE colour AS ENUM ('red', 'green');
CREATE TYPE pair AS (x integer, y text);
CREATE FUNCTION types(
	i integer DEFAULT NULL, b bigint DEFAULT NULL, n numeric DEFAULT NULL, d double precision DEFAULT NULL,
	t boolean DEFAULT NULL, s text DEFAULT NULL, z timestamptz DEFAULT NULL, j jsonb DEFAULT NULL,
	ia integer[] DEFAULT NULL, ba bigint[] DEFAULT NULL, na numeric[] DEFAULT NULL,
	da double precision[] DEFAULT NULL, ta boolean[] DEFAULT NULL, sa text[] DEFAULT NULL,
	za timestamptz[] DEFAULT NULL, ja jsonb[] DEFAULT NULL,
	v varchar(3) DEFAULT NULL, dt date DEFAULT NULL, u uuid DEFAULT NULL, iv interval DEFAULT NULL,
	bb bytea DEFAULT NULL, dm positive DEFAULT NULL, en colour DEFAULT NULL, co pair DEFAULT NULL,
	coa pair[] DEFAULT NULL)
RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(E'\n', i, b, n, d, t, quote_literal(s), z, j, ia, ba, na, da, ta, sa, za, ja, v, dt, u, iv, bb,
		dm, en, co, coa)
$$;
CALL fails($$SELECT taskshed.add_task('types', '2100-01-01', '{"i": "one"}')$$);
CALL fails($$SELECT taskshed.add_task('types', '2100-01-01', '{"i": 1.5}')$$);
CALL fails($$SELECT taskshed.add_task('types', '2100-01-01', '{"i": 2147483648}')$$);
CALL fails($$SELECT taskshed.add_task('types', '2100-01-01', '{"b": 9223372036854775808}')$$);
CALL fails($$SELECT taskshed.add_task('types', '2100-01-01', '{"i": true}')$$);
CALL fails($$SELECT taskshed.add_task('types', '2100-01-01', '{"d": "1e999"}')$$);
CALL fails($$SELECT taskshed.add_task('types', '2100-01-01', '{"t": "maybe"}')$$);
CALL fails($$SELECT taskshed.add_task('types', '2100-01-01', '{"z": "tomorrow at noon"}')$$);
CALL fails($$SELECT taskshed.add_task('types', '2100-01-01', '{"z": "2100-02-30"}')$$);
CALL fails($$SELECT taskshed.add_task('types', '2100-01-01', '{"ia": 1}')$$);
CALL fails($$SELECT taskshed.add_task('types', '2100-01-01', '{"ia": [1, "two"]}')$$);
CALL fails($$SELECT taskshed.add_task('types', '2100-01-01', '{"ia": [[1, 2], [3]]}')$$);
CALL fails($$SELECT taskshed.add_task('types', '2100-01-01', '{"dm": 0}')$$);
CALL fails($$SELECT taskshed.add_task('types', '2100-01-01', '{"en": "blue"}')$$);

-- What the callback receives
SELECT taskshed.add_task('types', '2100-01-01', '{
	"i": -2147483648, "b": 9007199254740993, "n": 123456789012345678901234567890.123456789, "d": 1.7976931348623157e308,
	"t": true, "s": "it''s \"quoted\"\nback\\slash", "z": "2100-01-01T10:00:00+02:00", "j": {"k": [1, null, "x"]}}',
	task_id => 'scalars');
SELECT taskshed.add_task('types', '2100-01-01', '{
	"ia": [1, null, -3], "ba": [9007199254740993], "na": [0.1, 1e20], "da": [0.1, "NaN", "-Infinity"],
	"ta": [true, false, null], "sa": ["a,b", "", null, "NULL", "{}"], "za": ["2100-01-01T00:00:00Z"],
	"ja": [{"k": 1}, [2], 3, "x"]}',
	task_id => 'arrays');
SELECT taskshed.add_task('types', '2100-01-01', '{"ia": [], "sa": [["a", "b"], ["c", "d"]], "na": "{1,2}", "j": [], "s": ""}',
	task_id => 'more arrays');
SELECT taskshed.add_task('types', '2100-01-01', '{
	"i": "42", "b": "43", "n": "1.50", "d": "0.1", "t": "yes", "s": 12.50, "j": "a string"}',
	task_id => 'converted');
SELECT taskshed.add_task('types', '2100-01-01', '{"s": {"k": 1}, "j": null, "i": null, "ia": null}',
	task_id => 'nested and null');
SELECT taskshed.add_task('types', '2100-01-01', '{
	"v": "abc", "dt": "2100-02-28", "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "iv": "1 day 02:00", "bb": "\\x00ff",
	"dm": 1, "en": "green", "co": {"x": 1, "y": "two"}, "coa": [{"y": "only"}, null]}',
	task_id => 'others');
\pset format unaligned
\pset tuples_only on
SELECT taskshed.try_task('scalars');
SELECT taskshed.try_task('arrays');
SELECT taskshed.try_task('more arrays');
SELECT taskshed.try_task('converted');
SELECT taskshed.try_task('nested and null');
SELECT taskshed.try_task('others');
\pset format aligned
\pset tuples_only off
SELECT taskshed.remove_all_tasks();

-- null is NULL, and what is left out is the function's default.
CREATE FUNCTION defaults(a integer, b text DEFAULT 'b''s default', c integer DEFAULT 3) RETURNS text LANGUAGE sql
AS 'SELECT format(''%s, %s, %s'', coalesce(a::text, ''NULL''), coalesce(b, ''NULL''), coalesce(c::text, ''NULL''))';
SELECT kwargs, taskshed.try_task(taskshed.add_task('defaults', '2100-01-01', kwargs, task_id => 'defaults'))
FROM unnest(ARRAY['{"a": 1}', '{"a": 1, "c": 4}', '{"a": 1, "b": null}', '{"c": null, "b": "x", "a": null}']::jsonb[]) kwargs;

-- try_task gives the result as text, changes nothing and lets errors through.
CREATE FUNCTION fail(message text) RETURNS void LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION USING MESSAGE = message, ERRCODE = 'TS001', DETAIL = 'its detail', HINT = 'its hint'; END$$;
CREATE FUNCTION several() RETURNS SETOF integer LANGUAGE sql AS 'VALUES (1), (2)';
CREATE FUNCTION outs(a integer, OUT b integer, OUT c text) LANGUAGE sql AS 'SELECT a + 1, ''c''';
CREATE FUNCTION variadic_sum(VARIADIC numbers integer[]) RETURNS bigint LANGUAGE sql AS 'SELECT sum(n) FROM unnest(numbers) n';
SELECT taskshed.add_task('fail', '2100-01-01', '{"message": "on purpose"}', task_id => 'fail');
CALL fails($$SELECT taskshed.try_task('fail')$$);
SELECT state, run_count, last_status FROM taskshed.fetch_task('fail');
CALL fails($$SELECT taskshed.try_task('no such task')$$);
SELECT taskshed.try_task(NULL);
SELECT taskshed.try_task(taskshed.add_task('several', '2100-01-01'));
SELECT taskshed.try_task(taskshed.add_task('outs', '2100-01-01', '{"a": 1}'));
SELECT taskshed.try_task(taskshed.add_task('variadic_sum', '2100-01-01', '{"numbers": [1, 2, 3]}'));
SELECT taskshed.remove_all_tasks();

-- Procedures, polymorphic arguments, and an argument that takes the whole of kwargs
CREATE PROCEDURE proc(a integer, INOUT b integer DEFAULT 0) LANGUAGE plpgsql AS 'BEGIN b := a + b; END';
CREATE FUNCTION anything(x anyelement) RETURNS text LANGUAGE sql AS 'SELECT pg_typeof(x)::text';
CREATE FUNCTION whole(kwargs jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT jsonb_build_object(''all'', kwargs)';
SELECT taskshed.try_task(taskshed.add_task('proc', '2100-01-01', '{"a": 1}'));
SELECT taskshed.try_task(taskshed.add_task('proc', '2100-01-01', '{"a": 1, "b": 2}'));
SELECT taskshed.try_task(taskshed.add_task('anything', '2100-01-01', '{"x": 1}')),
	taskshed.try_task(taskshed.add_task('anything', '2100-01-01', '{"x": "one"}')),
	taskshed.try_task(taskshed.add_task('anything', '2100-01-01', '{"x": true}')),
	taskshed.try_task(taskshed.add_task('anything', '2100-01-01', '{"x": [1]}'));
SELECT taskshed.try_task(taskshed.add_task('whole', '2100-01-01', '{"x": 1, "y": [2]}')),
	taskshed.try_task(taskshed.add_task('whole', '2100-01-01'));
-- one command, given to taskshed.execute
SELECT taskshed.try_task(taskshed.add_task('taskshed.execute', '2100-01-01', '{"command": "SELECT 40 + 2"}'));
SELECT taskshed.remove_all_tasks();

-- The callback is looked up anew each time: what is replaced, altered, dropped or created meanwhile counts.
CREATE FUNCTION changing(a integer) RETURNS text LANGUAGE sql AS $$SELECT 'first ' || a$$;
SELECT taskshed.add_task('changing', '2100-01-01', '{"a": 1}', task_id => 'x');
SELECT taskshed.try_task('x');
CREATE OR REPLACE FUNCTION changing(a integer) RETURNS text LANGUAGE sql AS $$SELECT 'second ' || a$$;
SELECT taskshed.try_task('x');
DROP FUNCTION changing;
CALL fails($$SELECT taskshed.try_task('x')$$);
CREATE FUNCTION changing(b integer DEFAULT 0, a text DEFAULT '') RETURNS text LANGUAGE sql AS $$SELECT 'third ' || a || b$$;
SELECT taskshed.try_task('x');
ALTER FUNCTION changing RENAME TO changed;
CALL fails($$SELECT taskshed.try_task('x')$$);
ALTER FUNCTION changed RENAME TO changing;
SELECT taskshed.try_task('x');
SELECT taskshed.remove_task('x');

-- A callback may work on tasks, its own included.
CREATE FUNCTION busy() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM taskshed.add_task('add_task.nothing', '2100-01-01', task_id => 'from a callback');
	PERFORM taskshed.pause_task('busy');
	PERFORM taskshed.remove_task('busy');
	RETURN 'it ' || (taskshed.fetch_task('busy') IS NULL);
END $$;
SELECT taskshed.try_task(taskshed.add_task('busy', '2100-01-01', task_id => 'busy'));
SELECT task_id FROM taskshed.tasks;
SELECT taskshed.remove_all_tasks();

-- Large values, and many
CREATE FUNCTION measure(value text, n integer DEFAULT 0) RETURNS text LANGUAGE sql AS 'SELECT length(value) || '' '' || md5(value) || '' '' || n';
SELECT string_agg(md5(i::text), '' ORDER BY i) AS large FROM generate_series(1, 10000) i \gset
SELECT taskshed.add_task('measure', '2100-01-01', jsonb_build_object('value', :'large'), task_id => 'large', every => '1 day');
SELECT taskshed.try_task('large');
-- the same again, which is no change, then another group, and other arguments
SELECT taskshed.add_task('measure', NULL, jsonb_build_object('value', :'large'), task_id => 'large', every => '1 day');
SELECT taskshed.add_task('measure', NULL, jsonb_build_object('value', :'large'), task_id => 'large', every => '1 day', group_id => 'g');
SELECT taskshed.pause_tasks(group_id => 'g');
SELECT taskshed.try_task('large');
SELECT taskshed.add_task('measure', NULL, jsonb_build_object('value', :'large', 'n', 1), task_id => 'large', every => '1 day');
SELECT taskshed.try_task('large'), length((taskshed.fetch_task('large')).kwargs->>'value');
SELECT taskshed.remove_task('large');
DO $$
BEGIN
	EXECUTE format('CREATE FUNCTION hundred(%s) RETURNS integer LANGUAGE sql AS ''SELECT %s''',
		(SELECT string_agg('a' || i || ' integer', ', ') FROM generate_series(1, 100) i),
		(SELECT string_agg('a' || i, '+') FROM generate_series(1, 100) i));
END $$;
SELECT taskshed.try_task(taskshed.add_task('hundred', '2100-01-01',
	(SELECT jsonb_object_agg('a' || i, i) FROM generate_series(1, 100) i), task_id => 'hundred'));
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', (SELECT jsonb_object_agg('a' || i, i) FROM generate_series(1, 101) i))$$);
-- the longest ids that there are, four bytes a character where the encoding has them
DO $$
DECLARE
	longest text := repeat('x', 255);
BEGIN
	IF getdatabaseencoding() = 'UTF8' THEN
		SELECT string_agg(chr(131072 + i * 97), '') INTO longest FROM generate_series(1, 255) i;
	END IF;
	PERFORM taskshed.add_task('add_task.nothing', '2100-01-01', task_id => longest, group_id => longest);
	RAISE NOTICE '%', taskshed.remove_tasks(group_id => longest);
END $$;
SELECT taskshed.remove_all_tasks();


-- Callbacks: a name as in SQL, looked up with the search_path of now and stored with its schema.
CREATE SCHEMA "Other Schema";
CREATE FUNCTION "Other Schema"."Fun ""ny"""("Arg One" integer, "select" text) RETURNS text LANGUAGE sql
AS 'SELECT "select" || "Arg One"';
CREATE FUNCTION "Other Schema".add(a integer, b integer) RETURNS text LANGUAGE sql AS 'SELECT ''the other add''';
BEGIN;
SELECT taskshed.add_task('Add', '2100-01-01', '{"a": 1, "b": 2}', task_id => 'folded to lower case');
SELECT taskshed.add_task('add_task.add', '2100-01-01', '{"a": 1, "b": 2}', task_id => 'qualified');
SELECT taskshed.add_task(' "add_task" . "add" ', '2100-01-01', '{"a": 1, "b": 2}', task_id => 'quoted');
SELECT taskshed.add_task('"Other Schema"."Fun ""ny"""', '2100-01-01', '{"Arg One": 1, "select": "x"}', task_id => 'odd');
SELECT taskshed.add_task('now', '2100-01-01', task_id => 'built in');
SET LOCAL search_path = "Other Schema", add_task;
SELECT taskshed.add_task('add', '2100-01-01', '{"a": 1, "b": 2}', task_id => 'other path');
SELECT taskshed.add_task('"Fun ""ny"""', '2100-01-01', '{"Arg One": 1, "select": "x"}', task_id => 'odd, by path');
SET LOCAL search_path = '';
SELECT task_id, callback, CASE WHEN task_id <> 'built in' THEN taskshed.try_task(task_id) END AS result
FROM taskshed.tasks ORDER BY task_id;
ROLLBACK;

-- Which of several functions of a name is meant follows from the keys.
CREATE FUNCTION twin(a integer) RETURNS text LANGUAGE sql AS $$SELECT 'twin(a)'$$;
CREATE FUNCTION twin(b text) RETURNS text LANGUAGE sql AS $$SELECT 'twin(b)'$$;
CREATE FUNCTION same(a integer) RETURNS text LANGUAGE sql AS $$SELECT 'same(integer)'$$;
CREATE FUNCTION same(a text) RETURNS text LANGUAGE sql AS $$SELECT 'same(text)'$$;
BEGIN;
SELECT taskshed.try_task(taskshed.add_task('twin', '2100-01-01', '{"a": 1}'));
SELECT taskshed.try_task(taskshed.add_task('twin', '2100-01-01', '{"b": 1}'));
ROLLBACK;
CALL fails($$SELECT taskshed.add_task('twin', '2100-01-01')$$);
CALL fails($$SELECT taskshed.add_task('same', '2100-01-01', '{"a": 1}')$$);

-- What cannot be a callback
CREATE FUNCTION unnamed(integer) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION on_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE AGGREGATE total(n integer) (SFUNC = int4pl, STYPE = integer);
CREATE FUNCTION internals(x internal) RETURNS void LANGUAGE internal AS 'boolin';
CALL fails($$SELECT taskshed.add_task(NULL)$$);
CALL fails($$SELECT taskshed.add_task('')$$);
CALL fails($$SELECT taskshed.add_task(' ')$$);
CALL fails($$SELECT taskshed.add_task('no_such_function')$$);
CALL fails($$SELECT taskshed.add_task('add_task.no_such_function')$$);
CALL fails($$SELECT taskshed.add_task('no_such_schema.add', kwargs => '{"a": 1, "b": 2}')$$);
CALL fails($$SELECT taskshed.add_task('db.add_task.nothing')$$);
CALL fails($$SELECT taskshed.add_task('nothing()')$$);
CALL fails($$SELECT taskshed.add_task('two words')$$);
CALL fails($$SELECT taskshed.add_task('"unclosed')$$);
CALL fails($$SELECT taskshed.add_task('nothing; DROP TABLE add_task.hostile')$$);
CALL fails($$SELECT taskshed.add_task('unnamed')$$);
CALL fails($$SELECT taskshed.add_task('unnamed', kwargs => '{"1": 1}')$$);
CALL fails($$SELECT taskshed.add_task('on_change')$$);
CALL fails($$SELECT taskshed.add_task('total', kwargs => '{"n": 1}')$$);
CALL fails($$SELECT taskshed.add_task('row_number')$$);
CALL fails($$SELECT taskshed.add_task('internals', kwargs => '{"x": 1}')$$);
CALL fails($$SELECT taskshed.add_task('taskshed.execute', kwargs => '{"command": "SELEKT 1"}')$$);
CALL fails($$SELECT taskshed.add_task('taskshed.execute', kwargs => '{"command": "SELECT 1; SELEKT 2"}')$$);
CALL fails($$SELECT taskshed.add_task('taskshed.execute', kwargs => '{"command": null}')$$);
CALL fails($$SELECT taskshed.add_task('taskshed.execute', kwargs => '{"command": "SELECT 1; BEGIN"}')$$);
CALL fails($$SELECT taskshed.add_task('taskshed.execute', kwargs => '{"comand": "VACUUM"}')$$);
CALL fails($$CALL taskshed.execute('VACUUM')$$);
-- one that the owner may not execute is checked in permissions.sql

-- validate => false: the callback may come later, or never.
BEGIN;
SELECT taskshed.add_task('comes_later', '2100-01-01', '{"a": 1}', task_id => 'not there', validate => false);
SELECT taskshed.add_task('nowhere.at_all', '2100-01-01', task_id => 'schema not there', validate => false);
SELECT taskshed.add_task('now', '2100-01-01', '{"x": 1}', task_id => 'wrong arguments', validate => false);
SELECT taskshed.add_task('add', '2100-01-01', '{"a": "x", "b": 1}', task_id => 'wrong types', validate => false);
SELECT task_id, callback, kwargs FROM taskshed.fetch_tasks();
CALL fails($$SELECT taskshed.try_task('not there')$$);
CREATE FUNCTION comes_later(a integer) RETURNS text LANGUAGE sql AS $$SELECT 'here'$$;
SELECT taskshed.try_task('not there');
CALL fails($$SELECT taskshed.try_task('wrong types')$$);
ROLLBACK;
CALL fails($$SELECT taskshed.add_task('nothing', kwargs => '[]', validate => false)$$);
CALL fails($$SELECT taskshed.add_task('a.b.c', validate => false)$$);
CALL fails($$SELECT taskshed.add_task('', validate => false)$$);
BEGIN;
SET LOCAL search_path = '';
CALL add_task.fails($$SELECT taskshed.add_task('comes_later', '2100-01-01', validate => false)$$);
ROLLBACK;

-- Limits, retries and history: kept as given, and checked.
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 hour', task_id => 'limited', until => '2100-02-01',
	max_runs => 3, start_within => '1 minute', timeout => '2 minutes', max_attempts => 4, retry_delay => '5 seconds',
	retry_backoff => 1.5, retry_max_delay => '1 hour', history => 'errors');
SELECT until, max_runs, start_within, timeout, max_attempts, retry_delay, retry_backoff, retry_max_delay, history
FROM taskshed.fetch_task('limited');
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 hour', task_id => 'limited');
SELECT until, max_runs, start_within, timeout, max_attempts, retry_delay, retry_backoff, retry_max_delay, history
FROM taskshed.fetch_task('limited');
SELECT taskshed.remove_task('limited');
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-02', until => '2100-01-01')$$);
CALL fails($$SELECT taskshed.add_task('nothing', max_runs => 0)$$);
CALL fails($$SELECT taskshed.add_task('nothing', start_within => '-1 minute')$$);
CALL fails($$SELECT taskshed.add_task('nothing', timeout => '-1 minute')$$);
CALL fails($$SELECT taskshed.add_task('nothing', max_attempts => -1)$$);
CALL fails($$SELECT taskshed.add_task('nothing', retry_delay => '-1 second')$$);
CALL fails($$SELECT taskshed.add_task('nothing', retry_delay => '178000000 years')$$);
CALL fails($$SELECT taskshed.add_task('nothing', retry_backoff => 0.5)$$);
CALL fails($$SELECT taskshed.add_task('nothing', retry_backoff => 'NaN')$$);
CALL fails($$SELECT taskshed.add_task('nothing', retry_backoff => 'Infinity')$$);
CALL fails($$SELECT taskshed.add_task('nothing', retry_max_delay => '-1 hour')$$);
CALL fails($$SELECT taskshed.add_task('nothing', history => 'some')$$);

-- The originals of "every" and "catch_up" are no names for parameters in SQL.
-- (What the server says of that differs between versions.)
\set VERBOSITY sqlstate
SELECT taskshed.add_task('nothing', "interval" => '1 hour');
\set VERBOSITY default


-- Replacing: what is left out gets its default again ...
SELECT taskshed.add_task('add', '2100-01-01', '{"a": 1, "b": 2}', task_id => 'x', group_id => 'g', catch_up => 'all');
SELECT created_at AS created FROM taskshed.fetch_task('x') \gset
SELECT taskshed.add_task('nothing', '2100-01-02', task_id => 'x');
SELECT callback, group_id, kwargs, catch_up, run_at, state, created_at = :'created' AS still_the_same_task
FROM taskshed.tasks;
-- ... but a time left out is kept while every and the time zone are as before,
SELECT taskshed.add_task('add', kwargs => '{"a": 3, "b": 4}', task_id => 'x', group_id => 'h');
SELECT callback, group_id, kwargs, run_at FROM taskshed.tasks;
-- and a pause stays until it is ended.
SELECT taskshed.pause_task('x');
SELECT paused_at AS paused FROM taskshed.fetch_task('x') \gset
SELECT taskshed.add_task('nothing', '2100-01-03', task_id => 'x');
SELECT state, paused_at = :'paused' AS since_then, run_at FROM taskshed.tasks;
SELECT taskshed.add_task('nothing', '2100-01-03', task_id => 'x', paused => true);
SELECT state, paused_at = :'paused' AS since_then FROM taskshed.tasks;
SELECT taskshed.add_task('nothing', '2100-01-03', task_id => 'x', paused => false);
SELECT state, paused_at FROM taskshed.tasks;
SELECT taskshed.add_task('nothing', '2100-01-03', task_id => 'x', paused => true);
SELECT state, paused_at > :'paused' AS later FROM taskshed.tasks;
SELECT taskshed.remove_all_tasks();

-- A deploy script, run again: nothing changes.
SELECT taskshed.add_task('add', '2100-01-31', '{"a": 1, "b": 2}', every => '1 month', task_id => 'deployed', timezone => 'Europe/Berlin');
SELECT to_jsonb(t) AS before FROM taskshed.tasks t \gset
SELECT taskshed.add_task('add', kwargs => '{"b": 2, "a": 1}', every => '1 month', task_id => 'deployed', timezone => 'europe/berlin');
SELECT to_jsonb(t) = :'before' AS same FROM taskshed.tasks t;
SELECT taskshed.add_task('add', kwargs => '{"a": 5, "b": 2}', every => '1 mon', task_id => 'deployed', timezone => 'Europe/Berlin');
SELECT run_at = '2100-01-31 UTC' AS kept, kwargs FROM taskshed.tasks t;
SELECT taskshed.add_task('add', '2100-02-01', kwargs => '{"a": 1, "b": 2}', every => '1 month', task_id => 'deployed', timezone => 'Europe/Berlin');
SELECT run_at FROM taskshed.tasks;
-- Another interval or zone makes a new grid, from now if nothing else is said.
BEGIN;
SELECT taskshed.add_task('nothing', every => '30 days', task_id => 'deployed', timezone => 'Europe/Berlin');
SELECT run_at BETWEEN now() AND clock_timestamp() AS now, every FROM taskshed.tasks;
ROLLBACK;
BEGIN;
SELECT taskshed.add_task('nothing', every => '1 month', task_id => 'deployed', timezone => 'UTC');
SELECT run_at BETWEEN now() AND clock_timestamp() AS now, timezone FROM taskshed.tasks;
ROLLBACK;
BEGIN;
SELECT taskshed.add_task('nothing', task_id => 'deployed', timezone => 'Europe/Berlin');
SELECT run_at BETWEEN now() AND clock_timestamp() AS now, run_type, every FROM taskshed.tasks;
ROLLBACK;
SELECT taskshed.remove_all_tasks();

-- replace_existing => false leaves what is there, paused or not ...
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', replace_existing => false);
SELECT taskshed.add_task('add', '2100-01-02', '{"a": 1, "b": 2}', task_id => 'x', paused => true, replace_existing => false);
SELECT callback, run_at, state FROM taskshed.tasks;
SELECT taskshed.pause_task('x');
SELECT taskshed.add_task('add', '2100-01-02', '{"a": 1, "b": 2}', task_id => 'x', paused => false, replace_existing => false);
SELECT callback, run_at, state FROM taskshed.tasks;
-- ... though it must be right,
CALL fails($$SELECT taskshed.add_task('add', '2100-01-02', task_id => 'x', replace_existing => false)$$);
-- and replaces a task that has failed.  (The update stands for a run that failed.)
SELECT taskshed.resume_task('x');
UPDATE _taskshed.alarm SET failed_at = now(), last_status = 'failed', last_sqlstate = 'TS001', last_error = 'on purpose';
SELECT state, last_sqlstate, last_error FROM taskshed.tasks;
SELECT taskshed.add_task('add', '2100-01-02', '{"a": 1, "b": 2}', task_id => 'x', replace_existing => false);
SELECT callback, run_at, state FROM taskshed.tasks;
-- So does any other add_task.
UPDATE _taskshed.alarm SET failed_at = now();
SELECT state FROM taskshed.tasks;
SELECT taskshed.add_task('nothing', '2100-01-03', task_id => 'x');
SELECT callback, run_at, state FROM taskshed.tasks;
SELECT taskshed.remove_all_tasks();

-- A generated id finds its task again.
SELECT taskshed.add_task('nothing', '2100-01-01') AS id \gset
SELECT taskshed.add_task('nothing', '2100-01-02', task_id => :'id') = :'id' AS same;
SELECT count(*), min(run_at) FROM taskshed.tasks;
SELECT taskshed.remove_task(:'id');


-- Tasks belong to their transaction.
BEGIN;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'rolled back');
SELECT task_id FROM taskshed.tasks;
ROLLBACK;
SELECT task_id FROM taskshed.tasks;

BEGIN;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'a');
SAVEPOINT s;
SELECT taskshed.add_task('add', '2100-01-02', '{"a": 1, "b": 2}', task_id => 'a');
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'b');
ROLLBACK TO s;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'c');
SAVEPOINT s2;
SELECT taskshed.remove_task('a');
SELECT taskshed.pause_task('c');
ROLLBACK TO s2;
RELEASE s2;
SAVEPOINT s3;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'd');
RELEASE s3;
COMMIT;
SELECT task_id, callback, run_at, state FROM taskshed.fetch_tasks();
SELECT taskshed.remove_all_tasks();

DO $$
BEGIN
	PERFORM taskshed.add_task('add_task.nothing', '2100-01-01', task_id => 'before');
	BEGIN
		PERFORM taskshed.add_task('add_task.nothing', '2100-01-01', task_id => 'inside');
		PERFORM 1 / 0;
	EXCEPTION WHEN division_by_zero THEN
		PERFORM taskshed.add_task('add_task.nothing', '2100-01-01', task_id => 'after');
	END;
END $$;
SELECT task_id FROM taskshed.tasks ORDER BY task_id;
SELECT taskshed.remove_all_tasks();

-- Calls in odd places
BEGIN;
DECLARE c CURSOR FOR SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'cursor ' || i) FROM generate_series(1, 5) i;
FETCH 2 FROM c;
COMMIT;
COPY (SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'copy')) TO stdout;
CREATE TABLE places (id text DEFAULT taskshed.add_task('add_task.nothing', '2100-01-01', task_id => 'default'));
INSERT INTO places DEFAULT VALUES;
INSERT INTO places SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'select')
RETURNING taskshed.add_task('nothing', '2100-01-01', task_id => 'returning');
WITH w AS MATERIALIZED (SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'with')) SELECT * FROM w;
CREATE FUNCTION wrapper() RETURNS text LANGUAGE sql AS $$SELECT taskshed.add_task('add_task.nothing', '2100-01-01', task_id => 'SQL function')$$;
SELECT wrapper();
SELECT task_id FROM taskshed.tasks ORDER BY task_id;
SELECT taskshed.remove_all_tasks();

-- Each call sees what the calls before it did, also within one statement.
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x'),
	taskshed.add_task('nothing', '2100-01-02', task_id => 'x'),
	taskshed.pause_task('x'), taskshed.pause_task('x'), (taskshed.fetch_task('x')).run_at,
	taskshed.remove_task('x'), taskshed.remove_task('x');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x');
SELECT taskshed.add_task('nothing', '2100-01-02', task_id => 'x');
SELECT taskshed.remove_task('x');
SELECT taskshed.add_task('nothing', '2100-01-03', task_id => 'x');
SELECT run_at FROM taskshed.tasks;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT taskshed.add_task('nothing', '2100-01-04', task_id => 'x');
SELECT run_at FROM taskshed.fetch_tasks();
COMMIT;
SELECT taskshed.remove_all_tasks();

-- From triggers: a reminder for each order, moved with the order and gone with it.
CREATE TABLE orders (id integer PRIMARY KEY, due date);
CREATE FUNCTION remind(order_id integer) RETURNS text LANGUAGE sql AS 'SELECT format(''order %s'', order_id)';
CREATE FUNCTION schedule_reminder() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'DELETE' THEN
		PERFORM taskshed.remove_task('order ' || OLD.id);
	ELSE
		PERFORM taskshed.add_task('add_task.remind', NEW.due::timestamp AT TIME ZONE 'UTC', jsonb_build_object('order_id', NEW.id),
			task_id => 'order ' || NEW.id, group_id => 'reminders');
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER schedule_reminder AFTER INSERT OR UPDATE OR DELETE ON orders
FOR EACH ROW EXECUTE FUNCTION schedule_reminder();
INSERT INTO orders VALUES (1, '2100-01-01'), (2, '2100-01-02'), (3, '2100-01-03');
UPDATE orders SET due = '2100-02-01' WHERE id = 1;
DELETE FROM orders WHERE id = 2;
INSERT INTO orders VALUES (3, '2100-03-01') ON CONFLICT (id) DO UPDATE SET due = excluded.due;
COPY orders FROM stdin;
4	2100-04-01
\.
SELECT task_id, kwargs, run_at, taskshed.try_task(task_id) FROM taskshed.tasks ORDER BY task_id;
INSERT INTO orders VALUES (5, '2100-01-01'), (1, '2100-01-01');
SELECT count(*) FROM taskshed.tasks;
DROP TRIGGER schedule_reminder ON orders;
-- and at COMMIT, from a deferred one
CREATE CONSTRAINT TRIGGER schedule_reminder AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION schedule_reminder();
BEGIN;
INSERT INTO orders VALUES (6, '2100-06-01');
SELECT count(*) FROM taskshed.tasks WHERE task_id = 'order 6';
COMMIT;
SELECT count(*) FROM taskshed.tasks WHERE task_id = 'order 6';
SELECT taskshed.remove_all_tasks();

SET client_min_messages = warning;
DROP SCHEMA add_task, "Other Schema" CASCADE;
