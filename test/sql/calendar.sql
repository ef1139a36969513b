-- The times of schedules and intervals, in all kinds of months and time zones: next_runs.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
\pset null '(null)'

CREATE SCHEMA calendar;
SET search_path = calendar;
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

-- The next times after one, all of them in a zone's local time with its offset
CREATE FUNCTION times(schedule text, zone text, after text, n integer DEFAULT 4) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	times text;
BEGIN
	PERFORM set_config('timezone', zone, true);
	SELECT string_agg(to_char(t, 'Dy YYYY-MM-DD HH24:MI:SSOF'), ', ' ORDER BY ordinality) INTO times
	FROM taskshed.next_runs(schedule, zone, after::timestamptz, n) WITH ORDINALITY AS r (t);
	PERFORM set_config('timezone', 'UTC', true);
	RETURN times;
END $$;
CREATE FUNCTION times(every interval, anchor text, zone text, after text, n integer DEFAULT 4) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	times text;
BEGIN
	PERFORM set_config('timezone', zone, true);
	SELECT string_agg(to_char(t, 'Dy YYYY-MM-DD HH24:MI:SSOF'), ', ' ORDER BY ordinality) INTO times
	FROM taskshed.next_runs(every => every, run_at => anchor::timestamptz, timezone => zone,
		after => after::timestamptz, n => n) WITH ORDINALITY AS r (t);
	PERFORM set_config('timezone', 'UTC', true);
	RETURN times;
END $$;
\x on
\pset format unaligned
\pset fieldsep ':  '
\t on

-- What fields can hold
SELECT s || '  ->  ' || times(s, 'UTC', '2026-01-01 00:00', 4) FROM unnest(ARRAY[
	'* * * * *', '30 * * * *', '0 9 * * mon-fri', '0 9 * * 1-5', '0 9 * * MON-FRI', '0 0 1 1 *', '0 0 * * 7', '0 0 * * 0',
	'0 0 * * fri-sun', '0 0 * * fri-0', '0 0 * * 5-7', '*/20 * * * *', '5-20/7 3 * * *', '50/5 23 * * *', '0 0 25/3 * *',
	'1,2,3-5,*/30 0 * * *', '0 0 1 feb,Apr *', '0 0 1 jun-aug *', '0 0 1 */5 *', '  0	9  1 * *  ',
	'*/15 * * * * *', '30 0 12 * * *', '0,59 59 23 31 12 *', '0 0 ? * mon', '0 0 1 * ?', '0 0 ? * ?',
	'@hourly', '@daily', '@Midnight', '@weekly', '@monthly', '@yearly', '@annually',
	'30 seconds', '1 second', '59 SECONDS', '7 seconds']) WITH ORDINALITY AS u (s, i) ORDER BY i;

-- Days of the month: the last, nearest weekdays, either or both of day and weekday
SELECT s || '  ->  ' || times(s, 'UTC', '2027-12-31 12:00', 6) FROM unnest(ARRAY[
	'0 0 L * *', '0 0 $ * *', '0 0 l * *', '0 0 1,L * *', '0 0 31 * *', '0 0 30 * *', '0 0 29 2 *', '0 0 29 2 1', '0 0 29 2 */7',
	'0 0 15W * *', '0 0 1W * *', '0 0 31W * *', '0 0 28w 2 *', '0 0 1W,15W * *', '0 0 LW * *', '0 0 lw 2 *',
	'0 0 * * fri#2', '0 0 * * 5#5', '0 0 * * 0#1', '0 0 * * 7#1', '0 0 * * mon#1,mon#3', '0 0 * * friL', '0 0 * * 0L', '0 0 * * 1,fri#1',
	'0 0 13 * fri', '0 0 */2 * mon', '0 0 1 * */2', '0 0 1-7 * */7', '0 0 ? * 1', '0 0 *,5 * 1', '0 0 1-31 * 1', '0 0 1 1 0-6',
	'0 0 L * fri']) WITH ORDINALITY AS u (s, i) ORDER BY i;

-- Leap years: none in 2100, one in 2000
SELECT times('0 0 29 2 *', 'UTC', '2095-01-01', 3);
SELECT times('0 0 29 2 *', 'UTC', '1995-01-01', 3);
-- February 29 on a Sunday or whatever: 40 years between them at the most, and everything is found from everywhere
SELECT times('0 0 29 2 */7', 'UTC', '2089-01-01', 3);
SELECT count(*), min(d), max(d) FROM (SELECT t - lag(t) OVER (ORDER BY t) FROM taskshed.next_runs('0 0 29 2 */7', 'UTC', '2000-01-01', 100) t) x (d);
-- The ends of time
SELECT times('0 0 1 1 *', 'UTC', '4713-01-01 BC', 2);
SELECT times('0 0 1 1 *', 'UTC', '294275-06-01', 3);
SELECT times('0 0 29 2 *', 'Europe/Berlin', '294275-06-01', 3);
SELECT times('*/5 0 1 1 *', 'Europe/Berlin', '294276-12-31', 3);
SELECT times('30 seconds', 'UTC', '294276-12-31 23:59:15', 3);
SELECT times('1 day', '294276-12-29 12:00', 'UTC', '294276-12-29', 5);
-- Strictly after, to the microsecond
SELECT times('0 9 * * *', 'UTC', '2026-01-01 09:00', 1), times('0 9 * * *', 'UTC', '2026-01-01 08:59:59.999999', 1), times('0 9 * * *', 'UTC', '2026-01-01 09:00:00.000001', 1);
SELECT times('* * * * * *', 'UTC', '1969-12-31 23:59:58.5', 2), times('* * * * * *', 'UTC', '1999-12-31 23:59:58.5', 2), times('10 seconds', 'UTC', '1969-12-31 23:59:41', 3);

-- Berlin: clocks go from 02:00 to 03:00 on March 29 and from 03:00 to 02:00 on October 25, 2026
SELECT s || '  ->  ' || times(s, 'Europe/Berlin', '2026-03-28 12:00', 4) FROM unnest(ARRAY[
	'30 2 * * *', '0 2 * * *', '59 2 * * *', '0 3 * * *', '0,15,30 2 * * *', '0 2,3 * * *', '0 0,1,2,3,4 * * sun', '30 2 29 3 *',
	'59 59 2 * * *', '*/20 0 2 * * *', '*/30 2 * * *', '*/30 * * * *', '0 * * * *', '0 */2 * * *', '10/20 2 * * *', '5-15/5 2 * * *', '0 0-23 * * sun']) WITH ORDINALITY AS u (s, i) ORDER BY i;
SELECT s || '  ->  ' || times(s, 'Europe/Berlin', '2026-03-29 00:59 UTC', 4) FROM unnest(ARRAY[
	'*/30 * * * *', '0 * * * *', '0 */2 * * *', '30 2 * * *', '0 1-4 * * *']) WITH ORDINALITY AS u (s, i) ORDER BY i;
SELECT s || '  ->  ' || times(s, 'Europe/Berlin', '2026-10-24 23:30 UTC', 6) FROM unnest(ARRAY[
	'30 2 * * *', '0 2 * * *', '0 3 * * *', '0,30 2 * * *', '0 1,2,3 * * *', '*/30 2 * * *', '*/30 * * * *', '0 * * * *', '0 */2 * * *']) WITH ORDINALITY AS u (s, i) ORDER BY i;
-- after the first occurrence, and between the two: not again
SELECT times('30 2 * * *', 'Europe/Berlin', '2026-10-25 00:30 UTC', 2), times('30 2 * * *', 'Europe/Berlin', '2026-10-25 01:15 UTC', 2);
SELECT times('*/30 2 * * *', 'Europe/Berlin', '2026-10-25 00:30 UTC', 3);
-- A time that clocks always skip never comes.
SELECT times('*/30 2 * 3 0L', 'Europe/Berlin', '2026-01-01', 2);
SELECT times('30 2 * 3 0L', 'Europe/Berlin', '2026-01-01', 2);
CALL fails($$SELECT taskshed.add_task('nothing', schedule => '*/30 2 * 3 0L', timezone => 'Europe/Berlin')$$);

-- Lord Howe: half an hour. From 02:00 to 02:30 on October 4, from 02:00 to 01:30 on April 5
SELECT s || '  ->  ' || times(s, 'Australia/Lord_Howe', '2026-10-03 12:00', 3) || '  |  ' || times(s, 'Australia/Lord_Howe', '2026-04-04 12:00', 3) FROM unnest(ARRAY[
	'15 2 * * *', '45 1 * * *', '30 2 * * *', '0 2 * * *', '*/15 1,2 * * sun']) WITH ORDINALITY AS u (s, i) ORDER BY i;
-- Apia: no December 30, 2011
SELECT times('0 9 * * *', 'Pacific/Apia', '2011-12-29 00:00', 4), times('0 9 30 12 *', 'Pacific/Apia', '2011-01-01 00:00', 2), times('0 0 * * *', 'Pacific/Apia', '2011-12-29 00:00', 4), times('0 */8 * * *', 'Pacific/Apia', '2011-12-29 12:00', 3), times('0 9 * * fri', 'Pacific/Apia', '2011-12-24', 2);
-- Troll: two hours. From 01:00 to 03:00 on March 29, from 03:00 to 01:00 on October 25
SELECT times('0,30 1,2 * * *', 'Antarctica/Troll', '2026-03-28 12:00', 3), times('30 2 * * *', 'Antarctica/Troll', '2026-10-24 12:00', 2), times('0 * * * *', 'Antarctica/Troll', '2026-10-25 00:30', 5);
-- Casablanca: an hour back for Ramadan; Kathmandu: 05:45; a zone that is only an offset
SELECT times('30 2 * * *', 'Africa/Casablanca', '2024-03-09', 3), times('30 2 * * *', 'Africa/Casablanca', '2024-04-13', 3), times('0 * * * *', 'Asia/Kathmandu', '2026-01-01 00:10', 2), times('0 9 * * *', '-03:30', '2026-01-01 UTC', 1), times('0 9 * * *', 'XYZ-120', '2026-01-01 UTC', 1);

-- The same by brute force, over the minutes of some days around changes of clocks: what matches at each
-- instant, and the first instant at which the clock shows a time or a later one.  No rows.
CREATE TABLE clock AS
	SELECT zone, u, u AT TIME ZONE zone AS local
	FROM (VALUES ('Europe/Berlin', '2026-03-27'), ('Europe/Berlin', '2026-10-23'), ('Australia/Lord_Howe', '2026-04-03'),
			('Australia/Lord_Howe', '2026-10-02'), ('Pacific/Apia', '2011-12-28'), ('Antarctica/Troll', '2026-03-27'),
			('Antarctica/Troll', '2026-10-23'), ('Africa/Casablanca', '2024-03-08'), ('Africa/Casablanca', '2024-04-12'),
			('Europe/Dublin', '2026-10-23'), ('America/Sao_Paulo', '2018-11-02'), ('America/Sao_Paulo', '2018-02-16'),
			('Asia/Kathmandu', '1985-12-30')) AS v (zone, first),
		generate_series(first::timestamptz, first::timestamptz + interval '5 days', '1 minute') AS u;
CREATE TABLE expected AS
	SELECT zone, s, u FROM clock, unnest(ARRAY['*/15 * * * *', '*/20 0-3 * * *', '30 */2 * * *', '0 * * * *']) s
	WHERE CASE s WHEN '*/15 * * * *' THEN extract(minute FROM local) IN (0, 15, 30, 45)
		WHEN '*/20 0-3 * * *' THEN extract(minute FROM local) IN (0, 20, 40) AND extract(hour FROM local) <= 3
		WHEN '30 */2 * * *' THEN extract(minute FROM local) = 30 AND extract(hour FROM local)::integer % 2 = 0
		ELSE extract(minute FROM local) = 0 END
	UNION ALL
	SELECT DISTINCT zone, minute || ' ' || hour || ' * * *', (
			SELECT min(u) FROM clock c WHERE c.zone = d.zone AND local >= day + make_interval(hours => hour, mins => minute) AND
				u BETWEEN timezone(d.zone, day) - interval '2 days' AND timezone(d.zone, day) + interval '2 days')
	FROM (SELECT zone, generate_series(min(u) AT TIME ZONE zone + interval '1 day', max(u) AT TIME ZONE zone - interval '1 day', '1 day')::date AS day
			FROM clock GROUP BY zone, date_trunc('month', u)) d,
		unnest(ARRAY[0, 15, 30, 45]) minute, generate_series(0, 3) hour;
SELECT * FROM (
	SELECT zone, s, after, u AS expected, (SELECT t FROM taskshed.next_runs(s, zone, after, 1) t) AS found
	FROM (SELECT zone, s, u, coalesce(lag(u) OVER (PARTITION BY zone, s, date_trunc('month', u) ORDER BY u), u - interval '1 microsecond') AS after
		FROM expected) x) y
WHERE expected IS DISTINCT FROM found;

-- Intervals, spelled with days or months, have the same local times ...
SELECT times('1 day', '2026-03-01 02:30', 'Europe/Berlin', '2026-03-28 12:00', 3), times('1 day', '2026-10-01 02:30', 'Europe/Berlin', '2026-10-24 12:00', 3);
SELECT times('1 day', '2026-03-01 02:30:15.5', 'Europe/Berlin', '2026-03-28 12:00', 2), times('1 day', '2011-12-01 09:00', 'Pacific/Apia', '2011-12-29 00:00', 4), times('1 month', '2026-01-29 02:30', 'Europe/Berlin', '2026-03-01', 2);
SELECT t FROM taskshed.next_runs(every => '1 day', run_at => '2026-03-01 02:30:15.5 Europe/Berlin', timezone => 'Europe/Berlin', after => '2026-03-28', n => 3) t;
-- ... also if they begin at a time that exists twice, the second time;
SELECT times('1 day', '2026-10-25 01:30 UTC', 'Europe/Berlin', '2026-10-24 12:00', 3);
-- exact time is exact, months are counted from the beginning.
SELECT times('24 hours', '2026-03-28 09:00', 'Europe/Berlin', '2026-03-28', 3), times('1 day', '2026-03-28 09:00', 'Europe/Berlin', '2026-03-28', 3), times('1 day 12:00', '2026-03-28 09:00', 'Europe/Berlin', '2026-03-28', 3);
SELECT times('1 month', '2024-01-31', 'UTC', '2024-01-01', 6), times('1 year', '2024-02-29', 'UTC', '2024-01-01', 6), times('1 month', '2024-01-31', 'UTC', '2524-01-31', 2), times('1 month -1 day', '2024-01-31', 'UTC', '2024-01-01', 4);
-- Ten years of 10 ms, and of a millisecond and a third of one, are exact.
SELECT t - '2026-01-01'::timestamptz FROM taskshed.next_runs(every => '10 ms', run_at => '2026-01-01', after => '2036-01-01 00:00:00.005', n => 2) t;
SELECT (extract(epoch FROM t - '2026-01-01'::timestamptz) * 1000000) % 1333 FROM taskshed.next_runs(every => '1333 us', run_at => '2026-01-01', after => '2036-01-01', n => 3) t;
\t off
\x off
\pset format aligned

-- next_runs: parameters
CALL fails($$SELECT taskshed.next_runs()$$);
CALL fails($$SELECT taskshed.next_runs('* * * * *', every => '1 day')$$);
CALL fails($$SELECT taskshed.next_runs('* * * * *', task_id => 'x')$$);
CALL fails($$SELECT taskshed.next_runs('* * * * *', run_at => '2026-01-01')$$);
CALL fails($$SELECT taskshed.next_runs(task_id => 'x', timezone => 'UTC')$$);
CALL fails($$SELECT taskshed.next_runs('* * * * *', n => -1)$$);
CALL fails($$SELECT taskshed.next_runs('* * * * *', n => 10001)$$);
CALL fails($$SELECT taskshed.next_runs('* * * * *', after => 'infinity')$$);
CALL fails($$SELECT taskshed.next_runs(every => '1 day', run_at => '-infinity')$$);
CALL fails($$SELECT taskshed.next_runs(every => '-1 day')$$);
CALL fails($$SELECT taskshed.next_runs('* * * * *', 'Middle/Earth')$$);
CALL fails($$SELECT taskshed.next_runs(task_id => 'no such task')$$);
SELECT count(*), count(DISTINCT t), min(t) > now() AS ahead FROM taskshed.next_runs('* * * * *') t;
SELECT count(*) FROM taskshed.next_runs('* * * * * *', n => 10000);
SELECT count(*) FROM taskshed.next_runs('* * * * * *', n => 0);
SELECT * FROM taskshed.next_runs(every => '1 hour', after => '2026-01-01', n => 2);
SELECT * FROM taskshed.next_runs('0 0 * * *', NULL, '2026-01-01', 1, NULL, NULL, NULL);
SET timezone = 'Asia/Tokyo';
SELECT * FROM taskshed.next_runs('0 0 * * *', after => '2026-01-01', n => 1);
SET timezone = 'UTC';

-- Tasks with a schedule
SELECT taskshed.add_task('nothing', schedule => '0 9 * * mon-fri', timezone => 'Europe/Berlin', task_id => 'x');
SELECT run_type, every, schedule, timezone, run_at = (SELECT min(t) FROM taskshed.next_runs('0 9 * * mon-fri', 'Europe/Berlin') t) AS next FROM taskshed.tasks;
SELECT count(*) FROM (SELECT taskshed.next_runs(task_id => 'x') EXCEPT SELECT taskshed.next_runs('0 9 * * mon-fri', 'Europe/Berlin')) x;
SELECT taskshed.add_task('nothing', '2100-01-01 12:34:56', schedule => '@monthly', task_id => 'x', timezone => 'UTC', until => '2100-04-15', run_type => 'recurring');
SELECT schedule, timezone, run_at FROM taskshed.tasks;
SELECT * FROM taskshed.next_runs(task_id => 'x');
SELECT * FROM taskshed.next_runs(task_id => 'x', n => 2);
SELECT * FROM taskshed.next_runs(task_id => 'x', after => '2100-02-01');
-- Without run_at the next time stays while schedule and zone do.
SELECT taskshed.add_task('nothing', schedule => '@monthly', task_id => 'x', group_id => 'g');
SELECT schedule, group_id, run_at FROM taskshed.tasks;
SELECT taskshed.add_task('nothing', schedule => '@monthly', task_id => 'x', timezone => 'Asia/Tokyo');
SELECT schedule, run_at < '2099-01-01' AS near, extract(day FROM run_at AT TIME ZONE timezone) AS day FROM taskshed.tasks;
SELECT taskshed.add_task('nothing', '2100-01-01', schedule => '@monthly', task_id => 'x', timezone => 'Asia/Tokyo');
SELECT taskshed.add_task('nothing', schedule => '0 0 1 * *', task_id => 'x', timezone => 'Asia/Tokyo');
SELECT schedule, run_at < '2099-01-01' AS near FROM taskshed.tasks;
-- a grid of seconds is the same in all zones
SELECT taskshed.add_task('nothing', '2100-01-01', schedule => '30 seconds', task_id => 'x');
SELECT taskshed.add_task('nothing', schedule => '30 seconds', task_id => 'x', timezone => 'Asia/Tokyo');
SELECT schedule, timezone, run_at FROM taskshed.tasks;
-- Moving it moves the next run alone.
SELECT taskshed.update_execution_time('x', '2100-01-01 00:00:10');
SELECT * FROM taskshed.next_runs(task_id => 'x', n => 3);
-- From a schedule to an interval and to once; pauses are taken for over; so many runs only
SELECT taskshed.add_task('nothing', '2100-01-31', every => '1 month', task_id => 'x', max_runs => 3, paused => true);
SELECT every, schedule FROM taskshed.tasks;
SELECT * FROM taskshed.next_runs(task_id => 'x');
SELECT * FROM taskshed.next_runs(task_id => 'x', after => '2100-02-01');
SELECT taskshed.add_task('nothing', '2100-01-31', task_id => 'x');
SELECT run_type, every, schedule FROM taskshed.tasks;
SELECT * FROM taskshed.next_runs(task_id => 'x');
-- One that is behind (paused, so that it stays so)
SELECT taskshed.add_task('nothing', now() - interval '90 minutes', every => '1 hour', task_id => mode, catch_up => mode, paused => true) FROM unnest(ARRAY['all', 'coalesce', 'skip']) mode;
SELECT mode, array_agg(round(extract(epoch FROM t - now()) / 60) ORDER BY t) FROM unnest(ARRAY['all', 'coalesce', 'skip']) mode, taskshed.next_runs(task_id => mode, n => 3) t GROUP BY mode ORDER BY mode;
SELECT taskshed.add_tasks('[{"callback": "nothing", "schedule": "@weekly", "timezone": "Europe/Berlin", "task_id": "w"}]');
SELECT schedule, timezone FROM taskshed.fetch_task('w');
-- What cannot be
CALL fails($$SELECT taskshed.add_task('nothing', schedule => '@daily', every => '1 day')$$);
CALL fails($$SELECT taskshed.add_task('nothing', schedule => '@daily', run_type => 'once')$$);
CALL fails($$SELECT taskshed.add_task('nothing', schedule => '61 * * * *')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing", "schedule": "@never"}]')$$);
SELECT taskshed.remove_all_tasks();

SET client_min_messages = warning;
DROP SCHEMA calendar CASCADE;
