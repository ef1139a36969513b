-- The view overview: what it shows, that psql prints it in 120 columns whatever is in it, and to whom it shows what.
SET timezone = 'Asia/Kolkata';
SET datestyle = 'Postgres, DMY';
SET client_encoding = 'SQL_ASCII';	-- has no ellipsis; other encodings are in test/t/083_overview.pl
\pset format aligned

CREATE ROLE regress_us LOGIN;
CREATE ROLE "regress_""long
name"" of a role" LOGIN;
CREATE ROLE regress_st LOGIN IN ROLE pg_read_all_stats;
CREATE ROLE regress_no LOGIN;
GRANT USAGE ON SCHEMA taskshed TO regress_us, regress_st, regress_no, "regress_""long
name"" of a role";
CREATE SCHEMA overview;
GRANT USAGE ON SCHEMA overview TO PUBLIC;
SET search_path = overview, pg_catalog;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';

-- What is to come is far ahead, and what looks as if it had run is written by hand.
SELECT count(taskshed.add_task('nothing', '2100-01-02 03:04:05.987 UTC', task_id => t, owner => 'regress_us', paused => t = 'paused'))
FROM unnest('{scheduled,paused,failed,retried,once more}'::text[]) t;
UPDATE _taskshed.alarm a SET last_run_at = '2026-01-02 18:29:59.999 UTC', last_error = e, last_sqlstate = 'XX000',
	failed_at = CASE WHEN task_id = 'failed' THEN now() END,
	resume_at = CASE WHEN task_id = 'once more' THEN run_at END,
	run_at = CASE WHEN task_id = 'once more' THEN '2099-01-01' ELSE run_at END
FROM (VALUES ('failed', 'division by zero'), ('retried', E'1234567890123456789012'), ('once more', NULL)) v (t, e), _taskshed.task t
WHERE t.id = a.id AND task_id = v.t;
SELECT * FROM taskshed.overview WHERE owner = 'regress_us';

-- The ends of time, and of what has 19 columns
SET timezone = '<+0530>-05:30';
SELECT at, taskshed._short_time(at) FROM (VALUES ('infinity'::timestamptz), ('-infinity'), ('294276-12-31 23:59:59.999999 UTC'),
	('4714-11-24 00:00:00 BC UTC'), ('0001-01-01 00:00:00 BC'), ('0001-01-01 00:00:00'), ('9999-12-31 18:29:59 UTC'),
	('9999-12-31 18:30 UTC'), (NULL)) v (at);

-- Names and errors that are long, have lines, or what no terminal should get
SELECT count(taskshed.add_task('nothing', '2100-01-01', task_id => t, owner => E'regress_"long\nname" of a role'))
FROM unnest(ARRAY[repeat('x', 24), repeat('x', 25), repeat('x', 255), E'\n', E'a\tb\r\nc\u0007\u001b[2J\u007f', repeat(E'\u0001', 30), ' ', '|',
	E'\\x', repeat(E'\n', 24), E'23456789012345678901234\n']) t;
UPDATE _taskshed.alarm a SET last_run_at = '294000-01-01', last_error = repeat('error ', 10000), failed_at = now()
FROM _taskshed.task t WHERE t.id = a.id AND task_id = repeat('x', 25);
UPDATE _taskshed.alarm a SET last_run_at = '4000-01-01 BC', last_error = E'the first line\nthe second line'
FROM _taskshed.task t WHERE t.id = a.id AND task_id = '|';
UPDATE _taskshed.alarm a SET last_run_at = 'infinity', last_error = E'\n\n'
FROM _taskshed.task t WHERE t.id = a.id AND task_id = ' ';
UPDATE _taskshed.alarm a SET last_run_at = '-infinity', last_error = ''
FROM _taskshed.task t WHERE t.id = a.id AND task_id = repeat('x', 24);
SELECT * FROM taskshed.overview WHERE owner ~ '^regress' AND owner <> 'regress_us';

-- The line under the head is as wide as the others, and each row has one of them: 2 above, 2 below.
CREATE VIEW seen AS SELECT * FROM taskshed.overview WHERE owner ~ '^regress';
SELECT * FROM seen \g | awk 'NR == 2 { print length($0) } END { print NR - 4 }'
SET timezone = 'America/Argentina/Buenos_Aires';
SET datestyle = 'German';
SELECT * FROM seen \g | awk 'NR == 2 { print length($0) } END { print NR - 4 }'
SELECT count(*), max(length(owner)) AS owner, max(length(task_id)) AS task_id, max(length(next_run)) AS next_run, max(length(state)) AS state,
	max(length(last_run)) AS last_run, max(length(last_error)) AS last_error
FROM seen;
SET timezone = 'UTC';
SET datestyle = 'ISO';
-- The state in most columns is this.
SELECT max(length(state)) FROM unnest('{running,failed,paused,held,due,scheduled}'::text[]) state;

-- Cut to any width
SELECT w, '>' || taskshed._fit('abcdefgh', w) || '<' AS cut, taskshed._fit('', w) = '' AS empty
FROM unnest(ARRAY[-2147483648, -1, 0, 1, 2, 3, 4, 7, 8, 9, 2147483647]) w;
SELECT taskshed._fit(NULL, 3) IS NULL AND taskshed._fit('x', NULL) IS NULL AS nulls;

-- It shows what the view tasks does, to everybody.
CREATE VIEW wanted AS
SELECT owner::text, task_id, CASE WHEN state NOT IN ('failed', 'paused', 'held') THEN to_char(run_at, 'YYYY-MM-DD HH24:MI:SS') END,
	state, to_char(last_run_at, 'YYYY-MM-DD HH24:MI:SS'), last_error
FROM taskshed.tasks WHERE owner = 'regress_us';
CREATE FUNCTION shown(OUT rows bigint, OUT errors bigint, OUT short bigint, OUT missing bigint, OUT wrong bigint) LANGUAGE sql AS $$
	SELECT (SELECT count(*) FROM taskshed.overview WHERE owner ~ '^regress'),
		(SELECT count(last_error) FROM taskshed.overview WHERE owner ~ '^regress'),
		(SELECT count(*) FROM wanted),
		(SELECT count(*) FROM (SELECT * FROM wanted EXCEPT SELECT * FROM taskshed.overview) x),
		(SELECT count(*) FROM (SELECT * FROM taskshed.overview WHERE owner = 'regress_us' EXCEPT SELECT * FROM wanted) x)
$$;
GRANT SELECT ON wanted, seen TO PUBLIC;
SELECT * FROM shown();
SET ROLE regress_us;
SELECT * FROM shown();
SET ROLE regress_st;
SELECT * FROM shown();
SET ROLE regress_no;
SELECT * FROM shown();
-- and it is a barrier
CREATE FUNCTION pg_temp.leak(x text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$BEGIN RAISE NOTICE '%', x; RETURN true; END$$;
SELECT count(*) FROM taskshed.overview WHERE pg_temp.leak(task_id);
RESET ROLE;

-- By role and task_id. The first ones of many can be had without sorting them all: an index has this order.
SELECT count(*), array_agg(task_id) = array_agg(task_id ORDER BY task_id COLLATE "C") AS in_order FROM taskshed.overview WHERE owner = 'regress_us';
CREATE FUNCTION sorts() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXPLAIN SELECT * FROM taskshed.overview LIMIT 1 LOOP
		IF line ~ 'Sort|Limit' THEN
			RETURN NEXT regexp_replace(line, '[ (].*', '');
		END IF;
	END LOOP;
END $$;
SET enable_sort = off;
SELECT sorts();
RESET enable_sort;

SELECT taskshed.remove_all_tasks('regress_us'), taskshed.remove_all_tasks(E'regress_"long\nname" of a role');
SET client_min_messages = warning;
DROP SCHEMA overview CASCADE;
DROP OWNED BY regress_us, regress_st, regress_no, "regress_""long
name"" of a role";
DROP ROLE regress_us, regress_st, regress_no, "regress_""long
name"" of a role";
