-- Row types whose columns change between one conversion and the next, in one session: in kwargs and wherever they
-- are part of another type.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;

CREATE SCHEMA rows;
SET search_path = rows;
CREATE FUNCTION try(callback text, kwargs jsonb) RETURNS text LANGUAGE sql
RETURN taskshed.try_task(taskshed.add_task(callback, '2100-01-01', kwargs, task_id => 'try'));

CREATE TYPE pair AS (b bigint);
CREATE TYPE outside AS (p pair);
CREATE TYPE deep AS (os outside[]);
CREATE DOMAIN pair_domain AS pair;
CREATE DOMAIN pairs_domain AS pair_domain[];
CREATE TYPE pair_range AS RANGE (subtype = pair, multirange_type_name = pair_multirange);
CREATE TABLE entry (id integer, what text);
CREATE FUNCTION f_pair(v pair) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN v; END';
CREATE FUNCTION f_pairs(v pair[]) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN v; END';
CREATE FUNCTION f_outside(v outside) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN v; END';
CREATE FUNCTION f_deep(v deep) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN v; END';
CREATE FUNCTION f_domain(v pair_domain) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN v; END';
CREATE FUNCTION f_domains(v pairs_domain) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN v; END';
CREATE FUNCTION f_range(v pair_range) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN v; END';
CREATE FUNCTION f_multirange(v pair_multirange) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN v; END';
CREATE FUNCTION f_entry(v entry) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN v; END';
-- (a body that becomes part of the kept plan)
CREATE FUNCTION f_inlined(v pair) RETURNS text LANGUAGE sql AS 'SELECT (v).b::text';
CREATE FUNCTION f_variadic(VARIADIC v pair[]) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN v; END';

CREATE FUNCTION all_of_them(value jsonb) RETURNS TABLE (callback text, seen text) LANGUAGE sql AS $$
	VALUES ('f_pair', try('f_pair', jsonb_build_object('v', value))),
		('f_pairs', try('f_pairs', jsonb_build_object('v', jsonb_build_array(value, value)))),
		('f_outside', try('f_outside', jsonb_build_object('v', jsonb_build_object('p', value)))),
		('f_deep', try('f_deep', jsonb_build_object('v', jsonb_build_object('os', jsonb_build_array(jsonb_build_object('p', value)))))),
		('f_domain', try('f_domain', jsonb_build_object('v', value))),
		('f_domains', try('f_domains', jsonb_build_object('v', jsonb_build_array(value)))),
		('f_inlined', try('f_inlined', jsonb_build_object('v', value))),
		('f_variadic', try('f_variadic', jsonb_build_object('v', jsonb_build_array(value))))
$$;
SELECT * FROM all_of_them('{"b": 4294967292}');
SELECT try('f_range', '{"v": "[\"(4294967292)\",]"}'), try('f_multirange', '{"v": "{[\"(4294967292)\",]}"}');
ALTER TYPE pair ALTER ATTRIBUTE b TYPE text;
SELECT * FROM all_of_them('{"b": "4294967292"}');
SELECT try('f_range', '{"v": "[\"(4294967292)\",]"}'), try('f_multirange', '{"v": "{[\"(4294967292)\",]}"}');
ALTER TYPE pair ADD ATTRIBUTE c integer;
SELECT * FROM all_of_them('{"b": "x", "c": 3}');
ALTER TYPE pair DROP ATTRIBUTE c, ADD ATTRIBUTE d date;
SELECT * FROM all_of_them('{"b": "x", "c": 3, "d": "2100-01-01"}');
ALTER TYPE pair RENAME ATTRIBUTE d TO e;
SELECT * FROM all_of_them('{"b": "x", "d": "2100-01-01", "e": "2100-01-02"}');
-- within a transaction, and back again
BEGIN;
SAVEPOINT before;
ALTER TYPE pair ALTER ATTRIBUTE b TYPE integer;
SELECT * FROM all_of_them('{"b": 7}') LIMIT 3;
ROLLBACK TO before;
SELECT * FROM all_of_them('{"b": "x"}') LIMIT 3;
COMMIT;

SELECT try('f_entry', '{"v": {"id": 1, "what": "x"}}');
ALTER TABLE entry RENAME COLUMN what TO said;
SELECT try('f_entry', '{"v": {"id": 1, "what": "x", "said": "y"}}');
ALTER TABLE entry ALTER COLUMN id TYPE text, ADD COLUMN more text DEFAULT 'm';
SELECT try('f_entry', '{"v": {"id": "1", "what": "x", "said": "y"}}');
ALTER TABLE entry DROP COLUMN said;
SELECT try('f_entry', '{"v": {"id": "1", "what": "x", "said": "y"}}');

SELECT taskshed.remove_all_tasks();
RESET search_path;
DROP SCHEMA rows CASCADE;
