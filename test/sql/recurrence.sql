-- Recurring tasks: which intervals there can be, and the grid's anchor as far as it shows before a run.
-- The times of the grid are tested in calendar.sql.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
\pset null '(null)'

CREATE SCHEMA recurrence;
SET search_path = recurrence;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';

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

-- Intervals that move time forward, from the shortest to the longest; stored as they are
SELECT every, taskshed.add_task('nothing', '2100-01-01', every => every, task_id => every::text) = every::text AS added
FROM unnest(ARRAY['1 microsecond', '10 milliseconds', '1 second', '1 minute', '90 minutes', '24 hours', '1 day',
	'1 day 12:00', '1 week', '1 month', '1 month 2 days 03:04:05.678901', '1 year', '1000 years',
	'1 month -27 days', '1 month -1 day', '1 day -1 hour', '-1 month 32 days', '-1 day 25:00:01']::interval[]) every;
SELECT task_id, run_type, every = task_id::interval AS equal, every::text = task_id AS as_given FROM taskshed.tasks
ORDER BY every, task_id;
SELECT taskshed.remove_all_tasks();

-- Those that do not: zero, backwards, or not forward in every month and on every day
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '0')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '-1 second')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '-1 month')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 month -40 days')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 month -28 days')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 month -30 days')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day -24:00')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day -25:00')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '-1 month 28 days')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '-1 month 29 days')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '-1 month 30 days')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '-1 day 24:00:01')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '-1 day 24:30')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day -23:30')$$);

-- Infinite, where the type has it (17 and later; an error of the type before)
DO $$
DECLARE
	infinite text;
	message text;
BEGIN
	FOREACH infinite IN ARRAY ARRAY['infinity', '-infinity'] LOOP
		BEGIN
			PERFORM taskshed.add_task('recurrence.nothing', '2100-01-01', every => infinite::interval);
			RAISE NOTICE '% was accepted', infinite;
		EXCEPTION WHEN invalid_datetime_format OR invalid_parameter_value THEN
			GET STACKED DIAGNOSTICS message = MESSAGE_TEXT;
			IF current_setting('server_version_num')::integer < 170000 THEN
				RAISE NOTICE '% is refused', infinite;
			ELSIF message = 'interval of a recurring task must be finite' THEN
				RAISE NOTICE '% is refused', infinite;
			ELSE
				RAISE NOTICE '%', message;
			END IF;
		END;
	END LOOP;
END $$;
-- Longer than time
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '2147483647 days')$$);
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', every => '2147483646 months')$$);

-- run_at anchors the grid, given, new, or kept ...
SELECT taskshed.add_task('nothing', '2100-01-31 10:00 Europe/Berlin', every => '1 month', task_id => 'x', timezone => 'Europe/Berlin');
SELECT taskshed.add_task('nothing', '2100-02-28 10:00 Europe/Berlin', every => '1 month', task_id => 'y', timezone => 'Europe/Berlin');
SELECT task_id, run_at, anchor FROM _taskshed.task JOIN _taskshed.alarm USING (id) ORDER BY task_id;
-- ... so the script that is run again after some runs (the update stands for them) keeps the 31st.
UPDATE _taskshed.alarm SET run_at = '2100-02-28 10:00 Europe/Berlin', run_count = 1 WHERE anchor = '2100-01-31 10:00 Europe/Berlin';
SELECT taskshed.add_task('nothing', every => '1 month', task_id => 'x', timezone => 'Europe/Berlin', group_id => 'new');
SELECT run_at, anchor, run_count FROM _taskshed.alarm WHERE run_count > 0;
-- A new time is a new anchor.
SELECT taskshed.update_execution_time('x', '2100-03-15');
SELECT run_at, anchor FROM _taskshed.alarm WHERE run_count > 0;
SELECT taskshed.add_task('nothing', '2100-04-15', every => '1 month', task_id => 'x', timezone => 'Europe/Berlin');
SELECT run_at, anchor FROM _taskshed.alarm WHERE run_count > 0;
-- Pausing and resuming is none.
SELECT taskshed.pause_task('x'), taskshed.resume_task('x');
SELECT run_at, anchor FROM _taskshed.alarm WHERE run_count > 0;
SELECT taskshed.remove_all_tasks();

-- From recurring to once and back
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => 'x');
SELECT taskshed.add_task('nothing', '2100-01-02', task_id => 'x');
SELECT run_type, every, run_at FROM taskshed.tasks;
SELECT taskshed.add_task('nothing', '2100-01-03', every => '1 hour', task_id => 'x');
SELECT run_type, every, run_at FROM taskshed.tasks;
SELECT taskshed.remove_all_tasks();

SET client_min_messages = warning;
DROP SCHEMA recurrence CASCADE;
