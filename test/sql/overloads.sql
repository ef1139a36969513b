-- Several functions of one name: which of them a callback means, and when that cannot be told.
SET timezone = 'UTC';
SET datestyle = 'ISO';

CREATE SCHEMA overloads;
SET search_path = overloads;
CREATE FUNCTION try(callback text, kwargs jsonb DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN taskshed.try_task(taskshed.add_task(callback, '2100-01-01', kwargs, task_id => 'try'));
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, nullif(detail, ''), nullif(hint, ''));
END $$;
\t on
\pset format unaligned

-- Where SQL does not know either, since the arguments that are given have the same types, nothing is chosen.
CREATE FUNCTION clash(a integer) RETURNS text LANGUAGE sql AS $$SELECT 'integer'$$;
CREATE FUNCTION clash(a text) RETURNS text LANGUAGE sql AS $$SELECT 'text'$$;
CREATE FUNCTION clash(a integer, b integer DEFAULT 0) RETURNS text LANGUAGE sql AS $$SELECT 'integer, integer'$$;
SELECT try('clash', '{"a": 1}');
SELECT try('clash', '{"a": 1, "b": 1}');
DROP FUNCTION clash(text);
SELECT try('clash', '{"a": 1}');
-- with other types, the one without defaults is
DROP FUNCTION clash(integer);
CREATE FUNCTION clash(a text) RETURNS text LANGUAGE sql AS $$SELECT 'text'$$;
SELECT try('clash', '{"a": 1}');
SELECT try('clash', '{"a": 1, "b": 1}');

-- A polymorphic argument's type is a guess: where SQL would choose another function for it, nothing is chosen.
CREATE FUNCTION guess(x anyelement) RETURNS text LANGUAGE sql AS $$SELECT 'anyelement'$$;
CREATE FUNCTION guess(x numeric, y integer DEFAULT 0) RETURNS text LANGUAGE sql AS $$SELECT 'numeric, integer'$$;
SELECT try('guess', '{"x": 1}');
SELECT try('guess', '{"x": "1"}');
SELECT try('guess', '{"x": 1, "y": 1}');
CREATE PROCEDURE call(x anyelement) LANGUAGE sql AS $$SELECT 1$$;
CREATE PROCEDURE call(x numeric, y integer DEFAULT 0) LANGUAGE sql AS $$SELECT 1$$;
SELECT try('call', '{"x": 1}');
SELECT try('call', '{"x": true}');

-- Without arguments to choose by, the first schema of the search_path that has the name counts, and an overload that
-- cannot be called does not matter beside one that can.
CREATE SCHEMA overloads2;
CREATE FUNCTION overloads2.placed(a bigint) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION placed(a text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION overloads2.placed(a integer) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION overloads2.placed(a text, b text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION placed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION overloads2.changed(a integer) RETURNS void LANGUAGE sql AS '';
CREATE AGGREGATE total(a integer) (SFUNC = int4pl, STYPE = integer);
CREATE PROCEDURE placed_where() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM taskshed.add_callback('alias', 'placed', replace_existing => true);
	RAISE INFO 'alias: %', (SELECT callback FROM taskshed.callbacks);
	PERFORM taskshed.remove_callback('alias');
	PERFORM taskshed.add_task('placed', '2100-01-01', task_id => 'try', validate => false);
	RAISE INFO 'task: %', (SELECT callback FROM taskshed.tasks);
END $$;
SET search_path = overloads, overloads2;
CALL placed_where();
SET search_path = overloads2, overloads;
CALL placed_where();
SELECT taskshed.add_callback('alias', 'total');
SELECT taskshed.add_callback('alias', 'overloads.changed');
SELECT taskshed.add_callback('alias', 'changed');
SET search_path = overloads, overloads2;
SELECT taskshed.add_callback('alias', 'changed', replace_existing => true);
SELECT callback FROM taskshed.callbacks;
SELECT taskshed.remove_callback('alias');
DROP FUNCTION overloads2.changed;
SELECT taskshed.add_callback('alias', 'changed');
SET client_min_messages = warning;
DROP SCHEMA overloads2 CASCADE;
RESET client_min_messages;

SELECT taskshed.remove_all_tasks();
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA overloads CASCADE;
