-- What a text in kwargs means does not depend on the settings of the session that schedules or tries the task, but on
-- the task's time zone.  The callback itself has the session's settings.
SET timezone = 'Asia/Tokyo';
SET datestyle = 'German, DMY';
SET intervalstyle = 'sql_standard';

CREATE SCHEMA settings;
SET search_path = settings;
CREATE FUNCTION current() RETURNS text LANGUAGE sql STABLE
RETURN concat_ws(' ', current_setting('timezone'), current_setting('datestyle'), current_setting('intervalstyle'));
CREATE DOMAIN checked AS timestamptz CHECK (VALUE IS NULL OR current() = 'America/New_York ISO, MDY postgres');
CREATE TYPE times AS (t timestamptz, d date);
CREATE FUNCTION utc(t timestamptz) RETURNS text LANGUAGE sql STABLE RETURN to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI');
CREATE FUNCTION see(t timestamptz DEFAULT NULL, d date DEFAULT NULL, i interval DEFAULT NULL, c times DEFAULT NULL, ts timestamptz[] DEFAULT NULL,
	r tstzrange DEFAULT NULL, x checked DEFAULT NULL, n integer DEFAULT NULL)
RETURNS text LANGUAGE sql STABLE AS $$
	SELECT concat_ws(', ', 't ' || utc(t), 'd ' || to_char(d, 'YYYY-MM-DD'), 'i ' || extract(epoch FROM i), 'c ' || utc((c).t) || ' ' || to_char((c).d, 'YYYY-MM-DD'),
		'ts ' || utc(ts[1]), 'r ' || utc(lower(r)), 'x ' || utc(x), n) || ' with ' || current()
$$;
CREATE FUNCTION try(kwargs jsonb) RETURNS text LANGUAGE sql
RETURN taskshed.try_task(taskshed.add_task('see', '2100-01-01 00:00 UTC', kwargs, timezone => 'America/New_York', task_id => 'try'));

SELECT try('{"t": "2100-07-01 12:00", "d": "01/02/2100", "i": "-1 2:00:00"}');
SELECT try('{"t": "2100-07-01 12:00+02", "d": "2100-02-01"}');
SELECT try('{"c": {"t": "2100-07-01 12:00", "d": "01/02/2100"}, "ts": ["2100-07-01 12:00"], "r": "[2100-07-01 12:00,)"}');
SELECT try('{"x": "2100-07-01 12:00"}');
SELECT try('{"n": 1}');
-- of the session's, if none is given
SELECT taskshed.try_task(taskshed.add_task('see', '2100-01-01 00:00 UTC', '{"t": "2100-07-01 12:00"}', task_id => 'other'));
SET timezone = 'Europe/Berlin';
SELECT taskshed.try_task('other');
-- A value that cannot be leaves the settings as they are.
DO $$
BEGIN
	PERFORM settings.try('{"d": "13/13/2100"}');
EXCEPTION WHEN OTHERS THEN
	RAISE NOTICE '%: %', SQLSTATE, SQLERRM;
END $$;
SELECT current();

SELECT taskshed.remove_all_tasks();
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA settings CASCADE;
