-- update_tasks: what is given is changed, and nothing else.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
\pset null '(null)'

CREATE SCHEMA update_tasks;
SET search_path = update_tasks;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION add(a integer, b integer DEFAULT 1) RETURNS integer LANGUAGE sql AS 'SELECT a + b';

-- Says why a change is an error.
CREATE PROCEDURE fails(changes jsonb, task_ids text[] DEFAULT '{x}') LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	hint text;
	context text;
BEGIN
	RAISE NOTICE '% changed', taskshed.update_tasks(changes, task_ids);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
	RAISE NOTICE '% %', state, message || coalesce(E'\nHINT:  ' || nullif(hint, ''), '') || coalesce(E'\nCONTEXT:  ' || substring(context FROM '^task "[^"]*"'), '');
END $$;
-- What of the task x is another than it was when this was last asked
CREATE TABLE seen AS SELECT '{}'::jsonb AS task;
CREATE FUNCTION news() RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	now jsonb := (SELECT to_jsonb(t) || to_jsonb(a) - '{id,state,created_at,owner,running_since,worker_pid}'::text[]
		FROM taskshed.fetch_task('x') t JOIN _taskshed.task i USING (task_id) JOIN _taskshed.alarm a ON a.id = i.id);
	news jsonb := (SELECT jsonb_object_agg(n.key, n.value) FROM jsonb_each(now - 'task_tid') n, seen WHERE n.value IS DISTINCT FROM seen.task -> n.key);
BEGIN
	UPDATE seen SET task = now;
	RETURN news || CASE WHEN news ? 'revision' THEN '{"revision": "raised"}'::jsonb ELSE '{}' END;
END $$;
CREATE FUNCTION updated(changes jsonb) RETURNS jsonb LANGUAGE sql RETURN jsonb_build_object('n', taskshed.update_tasks(changes, array['x']));

-- Each key, and null for its default
SELECT taskshed.add_task('add', '2100-01-31 10:00', '{"a": 1}', every => '1 month', task_id => 'x');
SELECT news() IS NOT NULL AS there;
SELECT change AS changes, updated(change), news() FROM unnest(array[
	'{}', '{"validate": false}', '{"group_id": "g"}', '{"group_id": "g"}', '{"kwargs": {"a": 2, "b": 3}}', '{"kwargs": {"b": 2, "a": 5}}',
	'{"catch_up": "all"}', '{"until": "2100-06-01"}', '{"max_runs": 10}', '{"start_within": "1 minute"}', '{"timeout": "2 minutes"}',
	'{"max_attempts": 4}', '{"retry_delay": "5 seconds"}', '{"retry_backoff": 1.5}', '{"retry_max_delay": "1 hour"}', '{"history": "errors"}',
	'{"run_type": "recurring"}', '{"every": "1 mon"}',
	'{"group_id": null, "catch_up": null, "until": null, "max_runs": null, "start_within": null, "timeout": null, "max_attempts": null, "retry_delay": null, "retry_backoff": null, "retry_max_delay": null, "history": null, "run_type": null, "validate": null}'
]::jsonb[]) WITH ORDINALITY AS c (change, i) ORDER BY i;
-- A pause says when it began.
SELECT updated('{"paused": true}'), news() ? 'paused_at' AS paused;
SELECT updated('{"paused": true}'), news();
SELECT updated('{"paused": null}'), news();

-- New times.  The grid stays where it was,
SELECT updated('{"every": "2 months"}'), news();
SELECT * FROM taskshed.next_runs(task_id => 'x', n => 3);
UPDATE _taskshed.alarm SET anchor = '2020-01-31 10:00', run_at = '2100-01-31 10:00';
SELECT updated('{"every": "1 month"}'), news() ? 'run_at' AS moved;
SELECT run_at = (SELECT min(t) FROM taskshed.next_runs(every => '1 month', run_at => '2020-01-31 10:00') t) AS "on its grid", run_at > now() AS ahead FROM taskshed.fetch_task('x');
-- unless there is a new one; a schedule takes its place, and the other way round.
SELECT updated('{"run_at": "2100-01-15 10:00"}'), news();
SELECT updated('{"run_at": "2100-01-15 11:00", "every": "1 week"}'), news();
SELECT updated('{"schedule": "0 4 1 1 *"}'), news() - '{revision,run_at,scheduled_at}'::text[];
SELECT run_at = (SELECT min(t) FROM taskshed.next_runs('0 4 1 1 *') t) AS "at its time" FROM taskshed.fetch_task('x');
SELECT news();
SELECT updated('{"schedule": "0 4 1 1 *"}'), news();
SELECT updated('{"timezone": "Asia/Tokyo"}');
SELECT (run_at AT TIME ZONE 'Asia/Tokyo')::time AS tokyo FROM taskshed.fetch_task('x');
SELECT updated('{"every": "1 hour", "schedule": null}');
SELECT schedule, every, anchor = run_at AND run_at = (SELECT min(t) FROM taskshed.next_runs('0 4 1 1 *', 'Asia/Tokyo') t) AS "from its time on" FROM _taskshed.task JOIN _taskshed.alarm USING (id);
SELECT news() IS NOT NULL AS news;
-- A zone that makes no difference makes none.
SELECT updated('{"timezone": "Europe/Berlin"}'), news();
SELECT updated('{"timezone": null}'), news();
-- Texts without a zone are in the task's, the one that it is to have.
SELECT updated('{"timezone": "Asia/Tokyo", "run_at": "2100-01-01 12:00"}'), news();
SELECT updated('{"until": "2100-01-02 12:00"}'), news();
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'y', timezone => 'America/New_York');
SELECT taskshed.update_tasks('{"run_at": "2100-01-01 12:00"}', array['x', 'y']);
SELECT task_id, run_at FROM taskshed.tasks ORDER BY task_id;

-- Once and again and again
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'x', timezone => 'UTC');
SELECT news() IS NOT NULL AS news;
SELECT updated('{"every": "1 day"}'), news();
SELECT updated('{"run_type": "once", "every": null}'), news();
SELECT updated('{"schedule": "@daily"}'), news();
SELECT updated('{"run_type": "once", "schedule": null}'), news();

-- What cannot be; of several tasks none is changed then.
CALL fails('{"run_at": null}');
CALL fails('{"schedule": "0 4 * * *", "every": "1 day"}');
CALL fails('{"schedule": "61 * * * *"}', '{}');
CALL fails('{"run_type": "recurring"}');
CALL fails('{"timezone": "+03"}', '{}');
CALL fails('{"timezone": "Berlin"}', '{}');
CALL fails('{"catch_up": "never"}', '{}');
CALL fails('{"max_runs": 0}', '{}');
CALL fails('{"max_runs": "many"}', '{}');
CALL fails('{"interval": "1 day"}', '{}');
CALL fails('{"callback": "nothing"}');
CALL fails('{"task_id": "z"}');
CALL fails('{"owner": "somebody"}');
CALL fails('{"replace_existing": null}');
CALL fails('{"run_at": "2100-01-02", "until": "2100-01-01"}', '{}');
CALL fails('{"run_at": "infinity"}', '{}');
CALL fails('{"kwargs": {"x": 1}}');
CALL fails('{"group_id": ""}');
CALL fails('[]');
CALL fails('"{}"');
CALL fails(NULL);
CALL fails('{}', NULL);
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => 'y');
SELECT taskshed.add_task('add', '2100-01-01', '{"a": 1}', every => '1 day', task_id => 'z', until => '2100-06-01');
CALL fails('{"every": null}', '{y}');
CALL fails('{"every": null, "schedule": null}', '{y}');
CALL fails('{"run_type": "once"}', '{y}');
CALL fails('{"kwargs": {"a": 2}}', '{y,z}');
CALL fails('{"run_at": "2100-07-01"}', '{x,y,z}');
CALL fails('{"group_id": "g", "kwargs": {"x": 1}, "validate": false}', '{y}');
SELECT task_id, kwargs, run_at, group_id FROM taskshed.tasks ORDER BY task_id;
-- A callback that is not there any more is in the way of other kwargs only.
ALTER FUNCTION add RENAME TO plus_one;
CALL fails('{"every": "2 days"}', '{z}');
CALL fails('{"kwargs": {"a": 3}}', '{z}');
CALL fails('{"kwargs": {"a": 3}, "validate": false}', '{z}');
ALTER FUNCTION plus_one RENAME TO add;
SELECT taskshed.remove_all_tasks();
-- An alias is checked as what it stands for.
SELECT taskshed.add_callback('plus', 'add');
SELECT taskshed.add_task('plus', '2100-01-01', '{"a": 1}', task_id => 'x');
CALL fails('{"kwargs": {"a": 3}}');
CALL fails('{"kwargs": {"c": 3}}');
SELECT callback, kwargs FROM taskshed.tasks;
SELECT taskshed.remove_callback('plus');
CALL fails('{"kwargs": {"a": 4}}');
CALL fails('{"group_id": "h"}');
SELECT taskshed.remove_all_tasks();

-- Failed tasks: new times send them round again, nothing else does.
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => 'x'), taskshed.add_task('nothing', '2100-01-01', task_id => 'y');
UPDATE _taskshed.alarm SET failed_at = now(), attempt = 1, run_count = 3;
SELECT taskshed.update_tasks('{"group_id": "g", "history": "none", "max_runs": 4, "paused": true}', array['x', 'y']);
SELECT taskshed.update_tasks('{"paused": false, "timezone": "Asia/Tokyo"}', array['y']);
SELECT task_id, state, paused_at IS NOT NULL AS paused, attempt FROM taskshed.tasks ORDER BY task_id;
SELECT taskshed.update_tasks('{"timezone": "Asia/Tokyo", "paused": false}', array['x']), taskshed.update_tasks('{"run_at": "2100-01-01"}', array['y']);
SELECT task_id, state, attempt, run_at FROM taskshed.tasks ORDER BY task_id;
-- One that waits to be tried again goes on waiting.
UPDATE _taskshed.alarm SET attempt = 2, run_at = '2099-01-01';
SELECT taskshed.update_tasks('{"max_attempts": 7}', group_id => 'g');
SELECT task_id, state, attempt, run_at FROM taskshed.tasks ORDER BY task_id;
SELECT taskshed.update_tasks('{"every": "2 days"}', group_id => 'g');
SELECT task_id, state, attempt, run_at FROM taskshed.tasks ORDER BY task_id;
SELECT taskshed.remove_all_tasks();

-- Times that are over: the task goes, and that is a change.
SELECT taskshed.add_task('nothing', '2100-01-01', every => '1 day', task_id => id) FROM unnest('{a,b,c,d,e}'::text[]) id;
UPDATE _taskshed.alarm SET run_count = 5;
SELECT taskshed.update_tasks('{"until": "2020-01-01"}', array['a']);
SELECT taskshed.update_tasks('{"until": "2099-12-31"}', array['b']);
SELECT taskshed.update_tasks('{"max_runs": 5}', array['c']);
SELECT taskshed.update_tasks('{"max_runs": 6, "until": "2100-01-01"}', array['d', 'e']);
SELECT taskshed.update_tasks('{"run_at": "2100-01-02", "paused": true, "until": "2020-01-01"}', array['d']);
SELECT task_id, run_at FROM taskshed.tasks;
SELECT taskshed.remove_all_tasks();

-- Who is meant: as with pause_tasks and the others
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => id, group_id => 'g') FROM unnest('{a,b,c}'::text[]) id;
SELECT taskshed.update_tasks('{"group_id": "h"}', array['b', NULL, 'no such task', 'a', 'b']);
SELECT taskshed.update_tasks('{"run_at": "2100-02-01"}', group_id => 'h');
SELECT taskshed.update_tasks('{"run_at": "2100-02-01"}', '{}'), taskshed.update_tasks('{}', group_id => 'h');
SELECT task_id, group_id, run_at FROM taskshed.tasks ORDER BY task_id;
SELECT taskshed.update_tasks('{"run_at": "2100-02-01"}');
SELECT taskshed.update_tasks('{"run_at": "2100-02-01"}', '{a}', 'g');
CREATE ROLE regress_other;
GRANT USAGE ON SCHEMA taskshed TO regress_other;
CREATE ROLE regress_third LOGIN;
SELECT taskshed.add_task('update_tasks.nothing', '2100-01-01', task_id => 'a', owner => 'regress_third', validate => false);
SELECT taskshed.update_tasks('{"group_id": "theirs"}', '{a}', owner => 'regress_third');
SET ROLE regress_other;
SELECT taskshed.update_tasks('{"run_at": "2100-03-01"}', '{a}');
SELECT taskshed.update_tasks('{"run_at": "2100-03-01"}', '{a}', owner => 'regress_third');
RESET ROLE;
SELECT owner = current_user AS mine, task_id, group_id, run_at FROM taskshed.tasks WHERE task_id = 'a' ORDER BY mine;
BEGIN READ ONLY;
SELECT taskshed.update_tasks('{"run_at": "2100-03-01"}', '{a}');
ROLLBACK;
-- What a role has left that was dropped
DROP ROLE regress_third;
SELECT taskshed.update_tasks('{"group_id": "left"}', '{a}', owner => (SELECT owner::name FROM taskshed.tasks WHERE owner ~ '^[0-9]+$'));
SELECT group_id FROM taskshed.tasks WHERE owner ~ '^[0-9]+$';
SELECT taskshed.remove_all_tasks((SELECT owner::name FROM taskshed.tasks WHERE owner ~ '^[0-9]+$')), taskshed.remove_all_tasks();
REVOKE USAGE ON SCHEMA taskshed FROM regress_other;
DROP ROLE regress_other;

SET client_min_messages = warning;
DROP SCHEMA update_tasks CASCADE;
