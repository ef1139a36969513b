-- Deploy scripts: run again, by whomever and whenever, they change nothing that they do not say.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
\pset null '(null)'

CREATE SCHEMA deploys;
SET search_path = deploys;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION at(t timestamptz) RETURNS timestamptz LANGUAGE sql RETURN t;

-- A session with another TimeZone, as drivers set it, must not move the grid, let alone have the task run at once.
SELECT taskshed.add_task('nothing', '2100-01-01 03:00 Europe/Berlin', every => '1 day', timezone => 'Europe/Berlin', task_id => 'every');
SELECT taskshed.add_task('nothing', schedule => '0 3 * * *', timezone => 'Europe/Berlin', task_id => 'schedule');
SELECT taskshed.add_task('at', '2100-07-01 UTC', '{"t": "2100-07-01 12:00"}', timezone => 'America/New_York', task_id => 'once');
SELECT jsonb_agg(to_jsonb(t) ORDER BY task_id) AS before FROM taskshed.tasks t \gset
SELECT array_agg(a ORDER BY id) AS alarms FROM _taskshed.alarm a \gset
SET timezone = 'Asia/Tokyo';
SELECT taskshed.add_task('nothing', every => '1 day', task_id => 'every');
SELECT taskshed.add_task('nothing', schedule => '0 3 * * *', task_id => 'schedule');
SELECT taskshed.add_task('at', kwargs => '{"t": "2100-07-01 12:00"}', task_id => 'once');
SELECT taskshed.try_task('once')::timestamptz = '2100-07-01 16:00 UTC' AS "read in its zone";
SELECT taskshed.add_tasks('[{"callback": "nothing", "every": "1 day", "task_id": "every"},
	{"callback": "nothing", "schedule": "0 3 * * *", "task_id": "schedule"}]');
SET timezone = 'UTC';
SELECT jsonb_agg(to_jsonb(t) ORDER BY task_id) = :'before' AS same FROM taskshed.tasks t;
SELECT array_agg(a ORDER BY id) FILTER (WHERE task_id <> 'once') <@ (:'alarms'::_taskshed.alarm[]) AS "not even written"
FROM _taskshed.alarm a JOIN _taskshed.task USING (id);
-- Another definition keeps it as well, and another schedule is read in it.
SET timezone = 'Asia/Tokyo';
SELECT taskshed.add_task('nothing', schedule => '0 4 * * *', task_id => 'schedule', group_id => 'g');
SELECT timezone, (run_at AT TIME ZONE 'Europe/Berlin')::time AS berlin FROM taskshed.fetch_task('schedule');
-- A zone that is given counts; a new task has the session's, whoever had one of that name before.
SELECT taskshed.add_task('nothing', schedule => '0 4 * * *', task_id => 'schedule', timezone => 'Asia/Kathmandu');
SELECT timezone, (run_at AT TIME ZONE 'Asia/Kathmandu')::time AS kathmandu FROM taskshed.fetch_task('schedule');
SELECT taskshed.remove_task('schedule');
SELECT taskshed.add_task('nothing', schedule => '0 4 * * *', task_id => 'schedule');
SELECT timezone, (run_at AT TIME ZONE 'Asia/Tokyo')::time AS tokyo FROM taskshed.fetch_task('schedule');
-- A zone that this server does not know cannot be kept: the task gets the session's.
UPDATE _taskshed.task SET timezone = 'Middle/Earth' WHERE task_id = 'schedule';
SELECT taskshed.add_task('nothing', schedule => '0 4 * * *', task_id => 'schedule');
SELECT timezone FROM taskshed.fetch_task('schedule');
-- A number that a task has for a zone goes on, though none is accepted any more.
UPDATE _taskshed.task SET timezone = '-9' WHERE task_id = 'schedule';
SELECT taskshed.add_task('nothing', schedule => '0 5 * * *', task_id => 'schedule');
SELECT timezone, (run_at AT TIME ZONE 'Asia/Tokyo')::time AS tokyo FROM taskshed.fetch_task('schedule');
SELECT taskshed.remove_all_tasks();

-- Texts without a zone in add_tasks: in the zone that the task will have, be it given, kept, or the session's.
SET timezone = 'Europe/Berlin';
SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "given", "run_at": "2100-07-01 12:00", "until": "2100-07-02", "every": "1 hour", "timezone": "America/New_York"},
	{"callback": "nothing", "task_id": "kept", "run_at": "2100-07-01 12:00", "until": "2100-07-02", "every": "1 hour"},
	{"callback": "nothing", "task_id": "zoned", "run_at": "2100-07-01 12:00 Asia/Tokyo", "every": "1 hour", "timezone": "America/New_York"}]');
SELECT cardinality(taskshed.add_tasks('[{"callback": "nothing", "run_at": "2100-07-01 12:00", "timezone": "Asia/Tokyo", "group_id": "unnamed"}]'));
SET timezone = 'Asia/Tokyo';
SELECT to_jsonb(array_agg(t ORDER BY task_id)) AS before FROM taskshed.tasks t \gset
SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "given", "run_at": "2100-07-01 12:00", "until": "2100-07-02", "every": "1 hour", "timezone": "America/New_York"},
	{"callback": "nothing", "task_id": "kept", "run_at": "2100-07-01 12:00", "until": "2100-07-02", "every": "1 hour"},
	{"callback": "nothing", "task_id": "zoned", "run_at": "2100-07-01 12:00 Asia/Tokyo", "every": "1 hour"}]');
SELECT to_jsonb(array_agg(t ORDER BY task_id)) = :'before' AS same FROM taskshed.tasks t;
SET timezone = 'UTC';
SELECT coalesce(group_id, task_id) AS task, timezone, run_at, until FROM taskshed.tasks ORDER BY task;
SELECT taskshed.remove_all_tasks();

-- A grid that begins at a time that is given begins there only once, whether that has passed or not.
SELECT taskshed.add_task('nothing', '2020-01-01 03:00', every => '1 day', task_id => 'grid', paused => true);
UPDATE _taskshed.alarm SET run_at = '2100-01-01 03:00', scheduled_at = '2100-01-01 03:00';
SELECT taskshed.add_task('nothing', '2020-01-01 03:00', every => '1 day', task_id => 'grid');
SELECT run_at, state FROM taskshed.tasks;
SELECT taskshed.add_task('nothing', '2020-01-01 03:00', every => '1 day', task_id => 'grid', group_id => 'g');
SELECT run_at, group_id FROM taskshed.tasks;
SELECT taskshed.add_task('nothing', '2020-01-01 04:00', every => '1 day', task_id => 'grid');
SELECT run_at FROM taskshed.tasks;
SELECT taskshed.remove_all_tasks();

-- A task whose times are over is one fewer to be there, and no error that keeps the others from being.
SELECT taskshed.add_task('nothing', schedule => '0 3 * * *', until => '2020-01-01', task_id => 'over');
SELECT taskshed.add_task('nothing', '2019-12-31', until => '2020-01-01', task_id => 'over');
SELECT taskshed.add_task('nothing', '2019-01-01', every => '1 day', until => '2020-01-01', task_id => 'over', paused => true);
SELECT taskshed.add_task('nothing', '2100-01-01', until => '2020-01-01', task_id => 'over');
SELECT taskshed.add_task('nothing', until => '-infinity', task_id => 'over');
SELECT count(*) FROM taskshed.tasks;
SET client_min_messages = warning;
SELECT length(taskshed.add_task('nothing', until => '2020-01-01')), count(*) FROM taskshed.tasks;
-- (a schedule that has no time any more, though until is ahead)
SELECT taskshed.add_task('nothing', schedule => format('0 0 1 %s *', extract(month FROM now() + interval '6 months')), until => now() + interval '1 hour', task_id => 'over');
SELECT count(*) FROM taskshed.tasks;
SET client_min_messages = notice;
SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "b", "run_at": "2100-01-01"},
	{"callback": "nothing", "task_id": "over", "until": "2020-01-01", "every": "1 day"},
	{"callback": "nothing", "task_id": "a", "run_at": "2100-01-01", "until": "2100-01-01"}]');
SELECT task_id FROM taskshed.tasks ORDER BY task_id;
-- What is wrong is still an error: this would never have run.
SELECT taskshed.add_task('nothing', '2100-01-02', until => '2100-01-01');
-- and a task that is over is checked.
SELECT taskshed.add_task('nothing', until => '2020-01-01', kwargs => '{"x": 1}');
-- One that is there goes,
SELECT taskshed.add_task('nothing', every => '1 day', until => '2020-01-01', task_id => 'a');
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => 'b', until => '2100-02-01');
SELECT taskshed.add_task('nothing', every => '1 day', task_id => 'b', until => '2099-12-31');
SELECT count(*) FROM taskshed.tasks;
-- one that has failed, too;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'failed', paused => true);
UPDATE _taskshed.alarm SET failed_at = now();
SELECT taskshed.add_task('nothing', until => '2020-01-01', task_id => 'failed', replace_existing => false);
SELECT count(*) FROM taskshed.tasks;
-- but not one whose last time has come, as long as nobody changes that: it is still to run for it.
BEGIN;
SELECT taskshed.add_task('nothing', now() - interval '1 minute', schedule => '@yearly', until => now() + interval '1 day', task_id => 'last');
UPDATE _taskshed.task SET until = now() - interval '1 minute';
SELECT taskshed.add_task('nothing', schedule => '@yearly', until => now() - interval '1 minute', task_id => 'last');
SELECT taskshed.add_task('nothing', schedule => '@yearly', until => now() - interval '1 minute', task_id => 'last', group_id => 'g');
SELECT task_id, group_id FROM taskshed.tasks;
SELECT regexp_replace(taskshed.add_task('nothing', schedule => '@yearly', until => '2020-01-01', task_id => 'last'), '', '');
SELECT count(*) FROM taskshed.tasks;
ROLLBACK;
-- It leaves alone what replace_existing => false leaves alone.
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'kept');
SELECT taskshed.add_task('nothing', until => '2020-01-01', task_id => 'kept', replace_existing => false);
SELECT count(*) FROM taskshed.tasks;
SELECT taskshed.remove_all_tasks();
-- max_runs: how often it has run already counts.
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => 'counted');
UPDATE _taskshed.alarm SET run_count = 5;
SELECT taskshed.add_task('nothing', every => '1 day', task_id => 'counted', max_runs => 6);
SELECT run_at, max_runs FROM taskshed.tasks;
SELECT taskshed.add_task('nothing', every => '1 day', task_id => 'counted', max_runs => 5);
SELECT count(*) FROM taskshed.tasks;
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => 'counted', max_runs => 5);
SELECT run_count, state FROM taskshed.tasks;
SELECT taskshed.remove_all_tasks();

-- Waiting for another attempt.  Guards against trying for ever what is deployed again and again.
CREATE PROCEDURE wait_for_attempt(every interval) LANGUAGE sql BEGIN ATOMIC
	SELECT taskshed.remove_all_tasks();
	SELECT taskshed.add_task('nothing', '2099-01-01', every => wait_for_attempt.every, task_id => 'x', max_attempts => 3);
END;
CREATE PROCEDURE failed_once() LANGUAGE sql AS $$
	UPDATE _taskshed.alarm SET attempt = 1, interruptions = 1, scheduled_at = now() - interval '1 hour', run_at = '2100-01-01' $$;
CREATE VIEW waits AS SELECT attempt, interruptions, run_at, scheduled_at = now() - interval '1 hour' AS "for then", scheduled_at = now() AS "for now" FROM _taskshed.alarm;
BEGIN;
CALL wait_for_attempt(NULL);
CALL failed_once();
SELECT * FROM waits;
SELECT taskshed.add_task('nothing', task_id => 'x', max_attempts => 3);
SELECT * FROM waits;
SELECT taskshed.add_task('nothing', now() - interval '1 hour', task_id => 'x', max_attempts => 3);
SELECT * FROM waits;
SELECT taskshed.add_task('nothing', task_id => 'x', max_attempts => 3, paused => true);
SELECT * FROM waits;
SELECT taskshed.add_task('nothing', task_id => 'x', max_attempts => 3, paused => false, replace_existing => false);
SELECT * FROM waits;
-- Other words for it are no other task, but are kept.
SELECT revision FROM _taskshed.alarm \gset
SELECT taskshed.add_task('nothing', task_id => 'x', max_attempts => 3, description => 'waits');
SELECT description, (SELECT revision FROM _taskshed.alarm) <> :revision AS raised FROM taskshed.fetch_task('x');
SELECT * FROM waits;
-- Another definition begins anew: at once, as there is no other time.
SELECT taskshed.add_task('nothing', task_id => 'x', max_attempts => 4);
SELECT attempt, interruptions, run_at BETWEEN now() AND clock_timestamp() AS now, scheduled_at = run_at AS same FROM _taskshed.alarm;
CALL failed_once();
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', max_attempts => 4);
SELECT attempt, run_at, scheduled_at FROM _taskshed.alarm;
-- The same of a task that recurs, which begins anew with the time that it was at.
CALL wait_for_attempt('1 day');
CALL failed_once();
SELECT taskshed.add_task('nothing', every => '1 day', task_id => 'x', max_attempts => 3);
SELECT * FROM waits;
SELECT taskshed.add_task('nothing', '2099-01-01', every => '1 day', task_id => 'x', max_attempts => 3, paused => true);
SELECT * FROM waits;
SELECT taskshed.add_task('nothing', every => '1 day', task_id => 'x', max_attempts => 3, description => 'waits');
SELECT description FROM taskshed.fetch_task('x');
SELECT * FROM waits;
SELECT taskshed.add_task('nothing', every => '1 day', task_id => 'x', max_attempts => 4);
SELECT attempt, interruptions, run_at = now() - interval '1 hour' AS then, "for then" FROM waits;
CALL failed_once();
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => 'x', max_attempts => 4);
SELECT attempt, run_at, scheduled_at FROM _taskshed.alarm;
ROLLBACK;

-- Tasks of the same time run in the order in which they were added: in that of the array, whatever their names.
SELECT taskshed.add_tasks('[{"callback": "nothing", "run_at": "2100-01-01", "task_id": "c"}, {"callback": "nothing", "run_at": "2100-01-01", "group_id": "unnamed"},
	{"callback": "nothing", "run_at": "2100-01-01", "task_id": "b"}, {"callback": "nothing", "run_at": "2100-01-01", "task_id": "a"}]') IS NOT NULL AS added;
SELECT array_agg(coalesce(group_id, task_id) ORDER BY run_at, id) FROM _taskshed.task JOIN _taskshed.alarm USING (id);
SELECT taskshed.remove_all_tasks();
-- So do those that are due now.
SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "c", "paused": true}, {"callback": "nothing", "task_id": "b", "paused": true}, {"callback": "nothing", "task_id": "a", "paused": true}]');
SELECT array_agg(task_id ORDER BY run_at, id), count(DISTINCT run_at) FROM _taskshed.task JOIN _taskshed.alarm USING (id);
-- Replacing them keeps their places, and uses no numbers up.
SELECT last_value AS last FROM _taskshed.task_seq \gset
SELECT taskshed.add_tasks('[{"callback": "nothing", "task_id": "a"}, {"callback": "nothing", "task_id": "b"}, {"callback": "nothing", "task_id": "c", "group_id": "g"}]');
SELECT array_agg(task_id ORDER BY run_at, id) FROM _taskshed.task JOIN _taskshed.alarm USING (id);
SELECT last_value = :last AS same FROM _taskshed.task_seq;
SELECT taskshed.remove_all_tasks();

SET client_min_messages = warning;
DROP SCHEMA deploys CASCADE;
