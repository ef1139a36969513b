-- Names of time zones.  Guards against taking an offset for the opposite of what SET TimeZone takes it for,
-- and against leaving somebody alone who has left out the continent.
SET timezone = 'UTC';
SET datestyle = 'ISO';

CREATE SCHEMA zone_names;
SET search_path = zone_names;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';

-- Says why an expression is an error.
CREATE FUNCTION mistake(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	hint text;
BEGIN
	EXECUTE call;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN state || ' ' || message || coalesce(E'\n' || nullif(hint, ''), '');
END $$;
CREATE FUNCTION mistake_of_zone(zone text) RETURNS text LANGUAGE sql
RETURN mistake(format('SELECT taskshed.describe(''0 9 * * *'', %L)', zone));
CREATE FUNCTION hint_of_zone(zone text) RETURNS text LANGUAGE sql
RETURN format('%s: %s', zone, split_part(mistake_of_zone(zone), E'\n', 2));

-- Offsets alone, and what they would have been
SELECT mistake_of_zone(zone) FROM unnest(array['+03', '3', '-5', '5.5', ' 3']) zone;
-- Numbers of which POSIX makes a zone with a summer time, or one that SET TimeZone does not know
SELECT mistake_of_zone(zone) FROM unnest(array['3.5', '-3.5', '1e1', '0x3', '3.', '-0', '00', '0.0', '1e300', 'nan', 'infinity', '200', '3.5.5', '-167:59', '0xff', 'interval ''3''']) zone;
SELECT mistake('SELECT taskshed.add_task(''nothing'', ''2100-01-01'', timezone => ''+03'')');
SELECT mistake('SELECT taskshed.add_tasks(''[{"callback": "nothing", "timezone": "3"}]'')');
SELECT mistake('SELECT * FROM taskshed.next_runs(''@daily'', ''-3'')');
-- The hint's names are what it says they are.
SET timezone = '+03';
SELECT taskshed.describe('0 9 * * *') = taskshed.describe('0 9 * * *', '<+03>-03');
SET timezone = 'UTC';
-- No offset at all cannot be mistaken, and what is no number means the same in SET TimeZone; so the offset is told.
SELECT zone, taskshed.describe('0 9 * * *', zone), t::text FROM unnest(array['0', '+00:00', '+05:30', '<+03>-03', '<-03>+03', 'UTC+3', 'Etc/GMT-14', 'EST5EDT']) zone,
	taskshed.next_runs('0 9 * * *', zone, after => '2100-01-01', n => 1) t;
-- A summer time that changes no clock: looking for the next change must end.
SELECT taskshed.describe('0 9 * * *', 'EST5EDT5');
SELECT taskshed.describe('0 9 * * *', zone) FROM unnest(array['UTC', 'Europe/Berlin', 'GMT']) zone;

-- A session that has one goes on working, and so does a task that was given one in its zone.
SET timezone = '+03';
SELECT taskshed.add_task('nothing', schedule => '0 9 * * *', task_id => 'x');
SELECT timezone, (run_at AT TIME ZONE 'UTC')::time FROM taskshed.fetch_task('x');
SELECT taskshed.describe('0 9 * * *'), (t AT TIME ZONE 'UTC')::time FROM taskshed.next_runs('0 9 * * *', n => 1) t;
SET timezone = '+05:30';
SELECT taskshed.add_task('nothing', schedule => '0 9 * * *', task_id => 'y');
SELECT timezone, (run_at AT TIME ZONE 'UTC')::time FROM taskshed.fetch_task('y');
SET timezone = 'UTC';

-- A task of before has one: its schedule and the values that it passes are read alike.
CREATE FUNCTION show(at timestamptz) RETURNS text LANGUAGE sql RETURN at AT TIME ZONE 'UTC';
SELECT taskshed.add_task('show', '2100-01-01', '{"at": "2100-01-01 12:00"}', task_id => 'z');
UPDATE _taskshed.task SET timezone = '3' WHERE task_id = 'z';
SELECT taskshed.try_task('z');
SELECT taskshed.remove_all_tasks();

-- What was meant?
SELECT hint_of_zone(zone) FROM unnest(array['Berlin', 'berlin', 'new york', 'New_York', 'Europe/Berlim', 'Asia/Kolkatta', 'Londn', 'Kiritimati']) zone;
-- An abbreviation: what is close to one knows no summer time, or another
SELECT hint_of_zone('UTCC');
-- Nothing that is known, or too little to tell
SELECT hint_of_zone(zone) FROM unnest(array['Europe/Bielefeld', 'Middle/Earth', 'EDT', '', '/', 'x', repeat('Berlin', 50)]) zone;

SET client_min_messages = warning;
DROP SCHEMA zone_names CASCADE;
