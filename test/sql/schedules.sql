-- Cron expressions: what is refused, and what it says; what is accepted, in English.
SET timezone = 'UTC';
\pset format unaligned
\t on

CREATE SCHEMA schedules;
SET search_path = schedules;
CREATE FUNCTION verdict(schedule text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
BEGIN
	RETURN taskshed.describe(schedule);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN state || ' ' || message || coalesce(E'\nDETAIL:  ' || nullif(detail, ''), '') ||
		coalesce(E'\nHINT:  ' || nullif(hint, ''), '');
END $$;

-- One mistake in each field, with all that is said
SELECT verdict(s) FROM unnest(ARRAY['60 * * * * *', '60 * * * *', '* 24 * * *', '* * 0 * *', '* * * 13 *', '* * * * 8',
	'', '  ', '* * * *', '* * * * * * *', '@reboot', '@sometimes', '0 seconds', '60 seconds', 'x seconds', '30x seconds',
	'0 0 30 2 *', repeat('0', 1001)]) WITH ORDINALITY AS u (s, i) ORDER BY i;

-- All kinds of mistakes
SELECT regexp_replace(verdict(s), '\nHINT.*', '') FROM unnest(ARRAY[
	'a * * * *', '-1 * * * *', '1- * * * *', '1-x * * * *', '5-1 * * * *', '1-60 * * * *', '1, * * * *', ',1 * * * *', '1,,2 * * * *',
	'*/0 * * * *', '*/61 * * * *', '*/x * * * *', '*/ * * * *', '1/-1 * * * *', '*-5 * * * *', '** * * * *', '*5 * * * *', '1.5 * * * *',
	'? * * * *', 'L * * * *', '$ * * * *', '1W * * * *', '99999999999999999999 * * * *', '1#1 * * * *', 'mon * * * *',
	'* */25 * * *', '* 22-2 * * *', '* * 32 * *', '* * L-3 * *', '* * W * *', '* * 0W * *', '* * 32W * *', '* * 1-5W * *', '* * LL * *', '* * WL * *', '* * mon * *', '* * ?,1 * *', '* * ?/2 * *',
	'* * * 0 *', '* * * foo *', '* * * january *', '* * * nov-feb *', '* * * L *', '* * * ? *',
	'* * * * monday', '* * * * fri-mon', '* * * * 7-2', '* * * * L', '* * * * 5#0', '* * * * 5#6', '* * * * 5#', '* * * * 5#12', '* * * * 8#1', '* * * * 8L', '* * * * #1', '* * * * mon-fri#1', '* * * * 1-5L', '* * * * mon-friL', '* * * * 1mon', '* * * * */8',
	'* * * * + ', E'* * * * \u00e4', '30 secondss', '1 2 seconds', '@daily 5',
	'0 0 31 2,4,6,9,11 *', '0 0 30W 2 *', '0 0 31 4-4 ?']) WITH ORDINALITY AS u (s, i) ORDER BY i;
-- Not at all
SELECT taskshed.describe(NULL);
SELECT taskshed.describe('* * * * *', 'Middle/Earth');

-- In English
SELECT s || '  ->  ' || taskshed.describe(s, 'Europe/Berlin') FROM unnest(ARRAY[
	'0 9 * * mon-fri', '*/5 * * * *', '0 0 L * *', '0 9 * 3,6 tue#2', '* * * * *', '0 * * * *', '30 * * * *', '0,30 * * * *', '1-5 * * * *', '7/20 * * * *', '*/7 * * * *',
	'0 9 * * *', '0 9,12,17 * * *', '0,30 9,17 * * *', '0 9-17 * * *', '*/15 9-17 * * 1-5', '*/15 9 * * *', '*/15 9,17 * * *', '* 9 * * *', '* 9,10,12 * * *', '5,35 8-18 * * *', '5 1,3,5,7,9,11,13 * * *', '0 */2 * * *', '0 */5 * * *', '30 */2 * * *', '0 1-23/2 * * *', '15 0-11 * * *',
	'* * * * * *', '*/10 * * * * *', '*/10 * 9-17 * * *', '30 * * * * *', '15,45 * * * * *', '30 0 12 * * *', '0,30 0 12 * * *', '*/10 30 2 * * *', '* 0 * * * *', '5 */10 * * * *', '5 1-9 3,4 * * *', '*/7 * * * * *', '5,10 * 3 * * *',
	'0 0 1 * *', '0 0 1,15 * *', '0 0 1-7,20 * *', '0 0 */10 * *', '0 0 15W * *', '0 0 1W,15W * *', '0 0 LW * *', '0 0 1,15W,L,LW * *',
	'0 0 * * 1', '0 0 * * 0', '0 0 * * 7', '0 0 * * sat,sun', '0 0 * * 1,3,5', '0 0 * * 5-7', '0 0 * * 0-6', '0 0 * * 0,1', '0 0 * * friL', '0 0 * * 1#1,3#5,5L', '0 0 * * */2', '0 0 * * 1,2,3,sun#1',
	'0 0 13 * 5', '0 0 1 * mon-fri', '0 0 L * mon,thu', '0 0 1-31 * 1', '0 0 1 * 0-6', '0 0 */2 * mon', '0 0 */2 * mon-wed', '0 0 1-7 * */7', '0 0 * * mon', '0 0 1 * ?', '0 0 */2 * tue#2,thuL',
	'0 0 1 1 *', '0 0 1 jan-mar *', '0 0 1 1,2 *', '0 0 1 1,4,6-9 *', '0 0 * 5 *', '0 0 * 5 1-5', '*/5 * * 5 *', '*/5 * * * mon', '0 0 29 2 *', '0 0 */31 2 *,1', '0 0 8-14 * */7,mon#5',
	'@hourly', '@daily', '@weekly', '@monthly', '@yearly', '30 seconds', '1 second', '7 seconds']) WITH ORDINALITY AS u (s, i) ORDER BY i;
SELECT taskshed.describe('0 9 * * *');
SET timezone = 'Asia/Kathmandu';
SELECT taskshed.describe('0 9 * * *'), taskshed.describe('0 9 * * *', 'utc'), taskshed.describe('* * * * *');
-- Zones are named where they matter: this one is a quarter of an hour off, and clocks go back.
SELECT taskshed.describe('@hourly'), taskshed.describe('5 * * * *'), taskshed.describe('*/30 * * * *'), taskshed.describe('*/15 * * * *'),
	taskshed.describe('3,18,33,48 * * * *'), taskshed.describe('0-59 0-23 * * *');
-- What goes by elapsed time is not described like a list of the same numbers.
SELECT s || '  ->  ' || taskshed.describe(s, 'Europe/Berlin') FROM unnest(ARRAY[
	'0,30 2 * * *', '*/30 2 * * *', '0/30 2 * * *', '0,30 2-3 * * *', '*/30 2-3 * * *', '0 0,12 * * *', '0 */12 * * *', '5 */12 * * *', '0 0-23 * * *', '5 0-23/1 * * *'])
	WITH ORDINALITY AS u (s, i) ORDER BY i;
-- The same times are described in the same words.
SELECT bool_and(taskshed.describe(a) = taskshed.describe(b)) FROM (VALUES ('0 0 * * 0', '0 0 * * 7'), ('0 0 * * *', '@midnight'),
	('0 0 1-31 * 1', '0 0 * * *'), ('0-59 * * * *', '* * * * *'), ('0 0 1 */12 *', '@yearly'), ('0 0 ? * sun', '0 0 * * 0')) AS v (a, b);

SET client_min_messages = warning;
DROP SCHEMA schedules CASCADE;
