-- From JSON to the arguments of callbacks: what the callback sees of each value, for all kinds of types, and
-- which kinds of functions there are.
--
-- Tasks are far ahead and only tried; what is said of values that do not fit is in callback_mistakes.
SET timezone = 'America/New_York';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
SET extra_float_digits = 1;
SET bytea_output = hex;
\pset null '(null)'

CREATE SCHEMA types;
SET search_path = types;

CREATE TYPE mood AS ENUM ('sad', 'so so', 'it''s "fine"');
CREATE TYPE address AS (street text, number integer);
CREATE TYPE customer AS (name text, home address, others address[], feels mood, "Odd Name" numeric);
CREATE DOMAIN percentage AS integer CHECK (VALUE BETWEEN 0 AND 100);
CREATE DOMAIN even_percentage AS percentage CHECK (VALUE % 2 = 0);
CREATE DOMAIN percentages AS percentage[] CHECK (cardinality(VALUE) < 3);
CREATE DOMAIN safe_address AS address CHECK ((VALUE).number > 0);
CREATE TYPE textrange AS RANGE (subtype = text, subtype_opclass = text_pattern_ops, multirange_type_name = textmultirange);
CREATE TABLE orders (id integer, lines address[], gone integer, paid boolean DEFAULT true);
ALTER TABLE orders DROP COLUMN gone;

-- What a callback with an argument of that type sees when kwargs has that value
CREATE FUNCTION see(type text, value jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	seen text;
BEGIN
	EXECUTE format('CREATE FUNCTION types.callback(v %s) RETURNS text LANGUAGE sql AS %L', type,
		$_$SELECT coalesce(v::text, '(null)')$_$);
	PERFORM taskshed.add_task('callback', '2100-01-01', jsonb_build_object('v', value), task_id => 'see');
	seen := taskshed.try_task('see');
	EXECUTE format('DROP FUNCTION types.callback(%s)', type);
	RETURN seen;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

CREATE TABLE cases (n serial, type text, value jsonb);
INSERT INTO cases (type, value) VALUES
	('smallint', '-32768'),
	('integer', '2147483647'),
	('integer', '"42"'),
	('integer', '12e2'),
	('integer', '1.0'),
	('integer', 'null'),
	('bigint', '9007199254740993'),
	('bigint', '-9223372036854775808'),
	('numeric', '1.10'),
	('numeric', '123456789012345678901234567890123456789.000000000000000000000000000001'),
	('numeric', '1e-30'),
	('numeric', '"NaN"'),
	('numeric', '"-Infinity"'),
	('numeric(4,1)', '12.34'),
	('real', '0.1'),
	('double precision', '0.1'),
	('double precision', '1.7976931348623157e308'),
	('double precision', '"NaN"'),
	('double precision', '"Infinity"'),
	('double precision', '5e-324'),
	('oid', '4294967295'),
	('boolean', 'true'),
	('boolean', '"off"'),
	('boolean', '0'),
	('text', '"it''s \"quoted\" \\ and \n new, $1 %s"'),
	('text', '"\u00fc\ud83d\ude00"'),
	('text', '""'),
	('text', '12.50'),
	('text', 'true'),
	('text', 'null'),
	('text', '{"b": [1, null], "a": "x"}'),
	('text', '[1, "two"]'),
	('varchar(3)', '"abcdef"'),
	('char(5)', '"ab"'),
	('"char"', '"a"'),
	('name', '"a name"'),
	('bytea', '"\\x00ff10"'),
	('bytea', '"a\\\\b\\000"'),
	('bit(4)', '"1010"'),
	('bit varying', '"101"'),
	('uuid', '"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"'),
	('inet', '"192.168.1.5/24"'),
	('inet', '"::1"'),
	('cidr', '"10.0.0.0/8"'),
	('macaddr', '"08-00-2b-01-02-03"'),
	('macaddr8', '"08:00:2b:01:02:03:04:05"'),
	('date', '"2100-02-28"'),
	('date', '"infinity"'),
	('time', '"23:59:59.999999"'),
	('time with time zone', '"10:00+02"'),
	('timestamp', '"2100-01-01T10:00:00.123456"'),
	('timestamp', '"2100-01-01T10:00:00Z"'),
	('timestamp with time zone', '"2100-01-01T10:00:00"'),
	('timestamp with time zone', '"2100-01-01T10:00:00Z"'),
	('timestamp with time zone', '"2100-07-01T10:00:00+05:30"'),
	('timestamp with time zone', '"2100-07-01 10:00 Europe/Berlin"'),
	('timestamp with time zone', '"-infinity"'),
	('interval', '"1 mon -2 days 03:04:05.678"'),
	('interval', '"P1Y2M3DT4H5M6S"'),
	('money', '12.34'),
	('point', '"(1,2)"'),
	('box', '"(2,2),(0,0)"'),
	('path', '"[(0,0),(1,1)]"'),
	('polygon', '"((0,0),(1,0),(1,1))"'),
	('circle', '"<(1,2),3>"'),
	('tsvector', '"''fat'' ''cat'':2"'),
	('tsquery', '"fat & !cat"'),
	('pg_lsn', '"16/B374D848"'),
	('regclass', '"types.cases"'),
	('regprocedure', '"pg_catalog.now()"'),
	('regrole', '"pg_monitor"'),
	('json', '{"b": 1, "a": [1.10, null, true, "x"]}'),
	('json', '"a string"'),
	('json', '1.50'),
	('json', 'null'),
	('jsonb', '{"b": 1, "a": [1.10, null, true, {"deep": []}]}'),
	('jsonb', '"a string"'),
	('jsonb', '"{\"text\": \"that looks like an object\"}"'),
	('jsonb', '[]'),
	('jsonb', 'null'),
	('jsonpath', '"$.a[*] ? (@ > 1)"'),
	('integer[]', '[1, null, -3]'),
	('integer[]', '[]'),
	('integer[]', '"{1,2,3}"'),
	('integer[]', '"[0:1]={1,2}"'),
	('integer[]', '[[1, 2], [3, 4]]'),
	('integer[]', '[[[1], [2]], [[3], [4]], [[5], [6]]]'),
	('integer[]', 'null'),
	('text[]', '["a,b", "", null, "NULL", "{}", "\"", "\\"]'),
	('text[]', '[["a", "b"], ["c", "d"]]'),
	('text[][]', '["one dimension"]'),
	('numeric[]', '[0.10, 1e20, "NaN"]'),
	('boolean[]', '[true, false, "yes", null]'),
	('timestamp with time zone[]', '["2100-01-01T00:00:00Z", "2100-01-01"]'),
	('uuid[]', '["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]'),
	('bytea[]', '["\\x00", "\\xff"]'),
	('jsonb[]', '[{"k": 1}, [2], 3, "x", null]'),
	('json[]', '[{"k": 1.0}, []]'),
	('mood', '"so so"'),
	('mood', '"it''s \"fine\""'),
	('mood[]', '["sad", null, "so so"]'),
	('percentage', '100'),
	('percentage', '101'),
	('percentage', 'null'),
	('even_percentage', '42'),
	('even_percentage', '43'),
	('even_percentage', '102'),
	('percentage[]', '[1, 2, null]'),
	('percentage[]', '[1, 200]'),
	('percentages', '[1, 2]'),
	('percentages', '[1, 2, 3]'),
	('percentages', '[1, 200]'),
	('address', '{"street": "Main St.", "number": 5}'),
	('address', '{"number": "5"}'),
	('address', '{"Street": "unknown keys are ignored"}'),
	('address', '{}'),
	('address', '"(\"Main St.\",5)"'),
	('address', 'null'),
	('address[]', '[{"street": "a"}, null, {"number": 1, "street": "b, c"}]'),
	('address[]', '[[{"number": 1}, {"number": 2}]]'),
	('customer', '{"name": "Ann", "home": {"street": "Main St.", "number": 5}, "others": [{"number": 1}, {"number": 2}],
		"feels": "sad", "Odd Name": 1.10}'),
	('customer[]', '[{"home": {"number": 5}}, {"name": "O''Neil \"x\""}]'),
	('safe_address', '{"street": "x", "number": 1}'),
	('safe_address', '{"street": "x", "number": 0}'),
	('safe_address[]', '[{"number": 1}, {"number": 0}]'),
	('orders', '{"id": 1, "lines": [{"number": 1}]}'),
	('int4range', '"[1,5]"'),
	('int4range', '[1, 5]'),
	('int4range', '"empty"'),
	('int8range', '"(,10)"'),
	('numrange', '"[1.10,2.20)"'),
	('daterange', '"[2100-01-01,2100-01-31]"'),
	('tsrange', '"[\"2100-01-01 00:00\",)"'),
	('tstzrange', '"[2100-01-01 00:00Z,2100-01-02 00:00Z)"'),
	('textrange', '"[a,\"b c\")"'),
	('int4range[]', '["[1,2)", "empty"]'),
	('int4multirange', '"{[1,3),[2,7),[9,10)}"'),
	('datemultirange', '"{}"'),
	('textmultirange', '"{[a,b),[c,d)}"'),
	('xid8', '"18446744073709551615"'),
	('pg_snapshot', '"10:20:10,14,15"'),
	('aclitem', '"=r/pg_monitor"');
\pset format unaligned
\pset fieldsep ' | '
SELECT type, value, see(type, value) FROM cases ORDER BY n;
\pset format aligned
SELECT count(*) >= 60 AS enough FROM cases;

-- The same values all at once
CREATE FUNCTION many(a smallint, b text[], c customer, d percentage, e timestamptz, f jsonb, g numeric DEFAULT 1.10,
	h mood DEFAULT 'sad') RETURNS text LANGUAGE sql
AS $$SELECT concat_ws(' | ', a, b, c, d, e, f, g, h)$$;
SELECT taskshed.try_task(taskshed.add_task('many', '2100-01-01', task_id => 'many', kwargs => '{"f": {"x": null}, "e": "2100-01-01Z",
	"d": 7, "c": {"name": "Ann"}, "b": ["x", null], "a": 1}'));

-- Types of extensions, where there are any
DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'hstore') THEN
		CREATE EXTENSION hstore;
		ASSERT types.see('hstore', '"a=>1, b=>NULL"') = '"a"=>"1", "b"=>NULL';
		ASSERT types.see('hstore[]', '["a=>1", null]') = '{"\"a\"=>\"1\"",NULL}';
		DROP EXTENSION hstore;
	END IF;
	IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'citext') THEN
		CREATE EXTENSION citext;
		ASSERT types.see('citext', '"Abc"') = 'Abc';
		DROP EXTENSION citext;
	END IF;
	IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'ltree') THEN
		CREATE EXTENSION ltree;
		ASSERT types.see('ltree', '"a.b.c"') = 'a.b.c';
		DROP EXTENSION ltree;
	END IF;
	IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'seg') THEN
		CREATE EXTENSION seg;
		ASSERT types.see('seg', '"1.0 .. 2"') = '1.0 .. 2';
		DROP EXTENSION seg;
	END IF;
END $$;

-- A shorter form for what follows
CREATE FUNCTION try(callback text, kwargs jsonb DEFAULT NULL) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT taskshed.try_task(taskshed.add_task($1, '2100-01-01', $2, task_id => 'try'))
$$;

-- Polymorphic arguments have the type that comes nearest to the JSON value.
CREATE FUNCTION any_element(x anyelement) RETURNS text LANGUAGE sql AS 'SELECT pg_typeof(x) || '' '' || coalesce(x::text, ''(null)'')';
CREATE FUNCTION any_array(xs anyarray) RETURNS text LANGUAGE sql AS 'SELECT pg_typeof(xs) || '' '' || xs::text';
CREATE FUNCTION any_both(x anyelement, xs anyarray) RETURNS boolean LANGUAGE sql AS 'SELECT x = ANY (xs)';
CREATE FUNCTION any_two(x anycompatible, y anycompatible) RETURNS text LANGUAGE sql AS 'SELECT pg_typeof(x) || '' '' || x || '' '' || y';
CREATE FUNCTION any_result(x anyelement) RETURNS anyelement LANGUAGE sql AS 'SELECT x';
SELECT value, try('any_element', jsonb_build_object('x', value)) AS any_element
FROM unnest('{1.50,true,"\"x\"","null","[1, 2]","{\"a\": 1}"}'::jsonb[]) value;
SELECT try('any_array', '{"xs": [1, "two", null, {"a": 1}]}');
SELECT try('any_both', '{"x": {"a": 1}, "xs": [{"a": 1}]}');
SELECT try('any_two', '{"x": 1, "y": 2.5}');
SELECT try('any_result', '{"x": "same"}');
-- null, and what an empty array has, is what the others are
SELECT value, try('any_array', jsonb_build_object('xs', value)) AS any_array
FROM unnest(ARRAY['[1, 2.50, null]', '["x", null]', '[true]', '[[1], [2]]', '[]', '[null]', '[1, "x"]', '[1, true]', '[{"a": 1}]', '"{1,2}"']::jsonb[]) value;
CREATE FUNCTION any_same(x anyelement, y anyelement) RETURNS text LANGUAGE sql AS $$SELECT concat_ws(' ', pg_typeof(x), pg_typeof(y))$$;
CREATE FUNCTION any_among(x anyelement, y anyelement, xs anyarray) RETURNS text LANGUAGE sql
AS $$SELECT concat_ws(' ', pg_typeof(x), pg_typeof(y), pg_typeof(xs), x = ANY (xs))$$;
CREATE FUNCTION any_compatible(x anycompatible, xs anycompatiblearray, z anyelement) RETURNS text LANGUAGE sql
AS $$SELECT concat_ws(' ', pg_typeof(x), pg_typeof(xs), pg_typeof(z))$$;
SELECT kwargs, try('any_same', kwargs) AS any_same
FROM unnest(ARRAY['{"x": 1, "y": null}', '{"x": null, "y": true}', '{"x": null, "y": null}', '{"x": null, "y": {"a": 1}}']::jsonb[]) kwargs;
SELECT kwargs, try('any_among', kwargs) AS any_among
FROM unnest(ARRAY['{"x": 1, "y": 2, "xs": [1, 2]}', '{"x": "a", "y": null, "xs": ["b"]}', '{"x": null, "y": null, "xs": [1]}',
	'{"x": 1, "y": 1, "xs": null}', '{"x": "a", "y": "a", "xs": []}', '{"x": null, "y": null, "xs": null}', '{"x": [1], "y": [2], "xs": [[1]]}']::jsonb[]) kwargs;
SELECT kwargs, try('any_compatible', kwargs) AS any_compatible
FROM unnest(ARRAY['{"x": 1, "xs": [2], "z": null}', '{"x": null, "xs": [2], "z": null}', '{"x": true, "xs": null, "z": 1}']::jsonb[]) kwargs;

-- VARIADIC takes an array.
CREATE FUNCTION sum_of(first integer, VARIADIC numbers integer[]) RETURNS bigint LANGUAGE sql AS 'SELECT first + sum(n) FROM unnest(numbers) n';
CREATE FUNCTION joined(separator text, VARIADIC texts text[] DEFAULT '{x,y}') RETURNS text LANGUAGE sql AS 'SELECT array_to_string(texts, separator)';
CREATE FUNCTION any_of(VARIADIC xs anyarray) RETURNS text LANGUAGE sql AS 'SELECT xs::text';
SELECT try('sum_of', '{"numbers": [1, 2, 3], "first": 10}');
SELECT try('sum_of', '{"numbers": [], "first": 10}');
SELECT try('joined', '{"separator": "-", "texts": ["a", "b"]}');
SELECT try('any_of', '{"xs": [1, "x"]}');

-- Defaults: a missing key is one, null is not.
CREATE FUNCTION defaults(a integer, b text DEFAULT 'b''s', c integer DEFAULT 3, d jsonb DEFAULT '{"d": 1}') RETURNS text LANGUAGE sql
AS $$SELECT concat_ws(', ', a, coalesce(b, '(null)'), coalesce(c::text, '(null)'), coalesce(d::text, '(null)'))$$;
SELECT kwargs, try('defaults', kwargs) FROM unnest(ARRAY['{"a": 1}', '{"a": 1, "c": null}', '{"a": 1, "c": 4}',
	'{"a": 1, "b": null, "d": null}', '{"d": [], "b": "B", "a": 1}']::jsonb[]) kwargs;

-- OUT arguments and the columns of TABLE are no input; INOUT is.
CREATE FUNCTION outs(a integer, OUT b integer, INOUT c integer, OUT d text) LANGUAGE sql AS $$SELECT a + 1, c + 1, 'd'$$;
CREATE FUNCTION outs_only(OUT a integer, OUT b text) LANGUAGE sql AS $$SELECT 1, 'x'$$;
CREATE FUNCTION table_of(n integer) RETURNS TABLE (x integer, y text) LANGUAGE sql AS $$SELECT i, 'row ' || i FROM generate_series(1, n) i$$;
CREATE PROCEDURE outs_of(a integer, OUT b integer, INOUT c integer DEFAULT 5) LANGUAGE plpgsql AS $$BEGIN b := a + 1; c := c + 1; END$$;
SELECT try('outs', '{"a": 1, "c": 10}'), try('outs_only'), try('table_of', '{"n": 2}');
SELECT try('outs_of', '{"a": 1}'), try('outs_of', '{"a": 1, "c": 7}');

-- One jsonb argument named kwargs takes all of it.
CREATE FUNCTION whole(kwargs jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT kwargs';
CREATE FUNCTION whole_and_out(kwargs jsonb DEFAULT '{}', OUT n integer) LANGUAGE sql AS 'SELECT count(*) FROM jsonb_object_keys(kwargs)';
CREATE PROCEDURE whole_procedure(INOUT kwargs jsonb) LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION not_whole(kwargs json) RETURNS text LANGUAGE sql AS 'SELECT kwargs::text';
SELECT kwargs, try('whole', kwargs), try('whole_and_out', kwargs) AS out, try('whole_procedure', kwargs) AS procedure
FROM unnest(ARRAY['{}', '{"any": [1, null], "key": 1.10}', '{"kwargs": 1}', '{"kwargs": 1, "other": 2}', '{"": null}']::jsonb[]) kwargs;
SELECT try('not_whole', '{"kwargs": {"an": "argument"}}');
SELECT length(try('whole', jsonb_object_agg('key' || i, i))) FROM generate_series(1, 1000) i;

-- Overloads are told apart by the names of the arguments; what fits exactly wins.
CREATE FUNCTION report(day date) RETURNS text LANGUAGE sql AS $$SELECT 'day'$$;
CREATE FUNCTION report(week integer) RETURNS text LANGUAGE sql AS $$SELECT 'week'$$;
CREATE FUNCTION report(week text, year integer DEFAULT 2100) RETURNS text LANGUAGE sql AS $$SELECT 'week of ' || year$$;
CREATE FUNCTION report(kwargs jsonb) RETURNS text LANGUAGE sql AS $$SELECT 'all ' || kwargs::text$$;
SELECT kwargs, try('report', kwargs) FROM unnest(ARRAY['{"day": "2100-01-01"}', '{"week": 1}', '{"week": 1, "year": 2101}',
	'{"month": 1}', '{}']::jsonb[]) kwargs;

-- Names that need quotes
CREATE SCHEMA "Odd ""schema"".";
CREATE FUNCTION "Odd ""schema"".".";'.$1 (DROP)"("an ""arg"", $2" integer, "select" text DEFAULT 's', "Ünïcode" text DEFAULT 'u')
RETURNS text LANGUAGE sql AS $$SELECT "an ""arg"", $2" || "select" || "Ünïcode"$$;
SELECT try('"Odd ""schema"".".";''.$1 (DROP)"', '{"an \"arg\", $2": 1, "select": "''; --", "Ünïcode": "ü"}');
SELECT callback FROM taskshed.fetch_task('try');
CREATE FUNCTION "MixedCase"("Arg" integer, arg integer) RETURNS integer LANGUAGE sql AS 'SELECT "Arg" - arg';
SELECT try('"MixedCase"', '{"arg": 1, "Arg": 3}'), try('types . "MixedCase"', '{"arg": 1, "Arg": 3}'), try('TYPES.Whole', '{}');
DO $$
BEGIN
	EXECUTE format('CREATE FUNCTION types.%I(%I integer) RETURNS integer LANGUAGE sql AS ''SELECT $1''', repeat('f', 63), repeat('a', 63));
END $$;
SELECT try(repeat('f', 63), jsonb_build_object(repeat('a', 63), 63));
CREATE FUNCTION "new
line"("a
b" integer) RETURNS integer LANGUAGE sql AS 'SELECT $1';
SELECT try(E'"new\nline"', '{"a\nb": 5}');


-- Kinds of functions: what they return is text, of the first row's first column.
CREATE TABLE trace (n serial, what text);
CREATE FUNCTION returns_void() RETURNS void LANGUAGE plpgsql AS $$BEGIN INSERT INTO types.trace (what) VALUES ('void'); END$$;
CREATE FUNCTION returns_null() RETURNS integer LANGUAGE sql AS 'SELECT NULL::integer';
CREATE FUNCTION returns_record() RETURNS record LANGUAGE sql AS $$SELECT 1, 'x'::text$$;
CREATE FUNCTION returns_composite() RETURNS address LANGUAGE sql AS $$SELECT 'Main St.'::text, 5$$;
CREATE FUNCTION returns_array() RETURNS integer[] LANGUAGE sql AS 'SELECT ARRAY[1, 2]';
CREATE FUNCTION returns_domain() RETURNS percentage LANGUAGE sql AS 'SELECT 42';
CREATE FUNCTION returns_rows(n integer) RETURNS SETOF integer LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		INSERT INTO types.trace (what) VALUES ('row ' || i);
		RETURN NEXT i;
	END LOOP;
END $$;
CREATE FUNCTION returns_rows_sql(n integer) RETURNS SETOF trace LANGUAGE sql AS $$
	INSERT INTO types.trace (what) SELECT 'returning ' || i FROM generate_series(1, n) i RETURNING n, what
$$;
CREATE FUNCTION returns_records() RETURNS SETOF record LANGUAGE sql AS $$VALUES (1, 'x'::text), (2, 'y')$$;
CREATE FUNCTION returns_cursor() RETURNS refcursor LANGUAGE plpgsql AS $$DECLARE c CURSOR FOR SELECT 1; BEGIN OPEN c; RETURN c; END$$;
CREATE FUNCTION strict(a integer, b integer DEFAULT 1) RETURNS text LANGUAGE plpgsql STRICT AS $$
BEGIN
	INSERT INTO types.trace (what) VALUES ('strict');
	RETURN 'called';
END $$;
CREATE FUNCTION atomic(a integer) RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT a + 1; END;
CREATE PROCEDURE procedure(a integer) LANGUAGE sql AS $$INSERT INTO types.trace (what) VALUES ('procedure ' || a)$$;
CREATE FUNCTION with_settings() RETURNS text LANGUAGE sql SET search_path = pg_catalog SET work_mem = '1MB' SET timezone = 'Asia/Tokyo'
AS $$SELECT concat_ws(' ', current_setting('search_path'), current_setting('work_mem'), current_setting('timezone'))$$;
SELECT try('returns_void'), try('returns_null'), try('returns_array'), try('returns_domain'), try('returns_composite');
SELECT try('returns_record');
SELECT try('returns_rows', '{"n": 3}');
SELECT try('returns_rows_sql', '{"n": 2}');
SELECT try('returns_records');
SELECT try('returns_cursor') IS NOT NULL AS cursor;
SELECT try('strict', '{"a": 1}'), try('strict', '{"a": null}') AS skipped, try('strict', '{"a": 1, "b": null}') AS skipped;
SELECT try('atomic', '{"a": 1}'), try('procedure', '{"a": 1}');
SELECT try('with_settings'), current_setting('timezone');
SELECT what, count(*) FROM trace GROUP BY what ORDER BY what;

-- Procedures with results, named or not
CREATE PROCEDURE out_unnamed(a integer, OUT integer) LANGUAGE plpgsql AS 'BEGIN $2 := a + 1; END';
CREATE PROCEDURE out_only(OUT integer) LANGUAGE plpgsql AS 'BEGIN $1 := 1; END';
CREATE PROCEDURE out_same(a integer, OUT a text) LANGUAGE sql AS $$SELECT 'got ' || $1$$;
CREATE PROCEDURE out_between(OUT "A B" text, a integer, OUT text, INOUT b text, c integer DEFAULT 7, INOUT d integer DEFAULT 8)
LANGUAGE plpgsql AS $$BEGIN "A B" := concat_ws(' ', a, b, c, d); END$$;
CREATE PROCEDURE out_whole(kwargs jsonb, OUT text) LANGUAGE plpgsql AS 'BEGIN $2 := kwargs::text; END';
CREATE PROCEDURE out_variadic(OUT text, VARIADIC xs integer[]) LANGUAGE plpgsql AS 'BEGIN $1 := xs::text; END';
SELECT try('out_unnamed', '{"a": 1}'), try('out_only'), try('out_same', '{"a": 1}'), try('out_whole', '{"x": 1}'), try('out_variadic', '{"xs": [1, 2]}');
SELECT try('out_between', '{"a": 1, "b": "x"}'), try('out_between', '{"a": 1, "b": "x", "d": 3}');

-- Functions of the server, SECURITY DEFINER, and others' functions
SELECT try('pg_catalog.pi') LIKE '3.14159%' AS pi, try('current_database') = current_database() AS database,
	try('make_date', '{"year": 2100, "month": 2, "day": 28}') AS make_date,
	try('jsonb_set', '{"jsonb_in": {"a": 1}, "path": ["a"], "replacement": [2]}') AS jsonb_set;
CREATE ROLE regress_definer LOGIN;
CREATE ROLE regress_caller LOGIN;
GRANT USAGE ON SCHEMA taskshed TO regress_caller;
GRANT USAGE ON SCHEMA types TO regress_caller, regress_definer;
GRANT CREATE ON SCHEMA types TO regress_definer;
SET ROLE regress_definer;
CREATE FUNCTION definer(a percentage) RETURNS text LANGUAGE sql SECURITY DEFINER AS $$SELECT current_user::text || ' ' || a$$;
CREATE FUNCTION invoker() RETURNS text LANGUAGE sql AS 'SELECT current_user::text';
SET ROLE regress_caller;
SELECT try('definer', '{"a": 5}'), try('invoker');
SELECT taskshed.remove_all_tasks();
RESET ROLE;

-- A domain is checked by its definition of that moment.
CREATE FUNCTION of_domain(p percentage) RETURNS text LANGUAGE sql AS 'SELECT p::text';
SELECT try('of_domain', '{"p": 60}');
ALTER DOMAIN percentage ADD CONSTRAINT half CHECK (VALUE <= 50) NOT VALID;
SELECT try('of_domain', '{"p": 40}');
DO $$
BEGIN
	PERFORM types.try('of_domain', '{"p": 60}');
EXCEPTION WHEN OTHERS THEN
	RAISE NOTICE '%: %', SQLSTATE, SQLERRM;
END $$;

SELECT taskshed.remove_all_tasks();
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA types CASCADE;
DROP SCHEMA "Odd ""schema""." CASCADE;
REVOKE ALL ON SCHEMA taskshed FROM regress_caller;
DROP ROLE regress_definer, regress_caller;
