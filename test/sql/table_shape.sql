-- What a superuser has altered in our tables is noticed, whatever the column: its name, its place, its type.
-- (042_odd_rows has what becomes of the processes then.)

-- Is a call refused while the tables are like that?
CREATE FUNCTION is_refused(alteration text, call text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	refused boolean := false;
BEGIN
	BEGIN
		EXECUTE alteration;
		BEGIN
			EXECUTE call;
		EXCEPTION WHEN object_not_in_prerequisite_state THEN
			refused := (SQLERRM = 'tables of extension "taskshed" are not as it has made them');
		END;
		RAISE SQLSTATE 'TS000';
	EXCEPTION WHEN SQLSTATE 'TS000' THEN
		NULL;
	END;
	RETURN refused;
END $$;

-- The tables, what looks at them, and their columns
CREATE TEMP TABLE columns AS
SELECT t.name AS tab, t.call, a.attnum, quote_ident(a.attname) AS col, a.atttypid
FROM (VALUES ('_taskshed.task'::regclass, 'SELECT taskshed.next_wakeup()'), ('_taskshed.alarm', 'SELECT taskshed.next_wakeup()'),
		('_taskshed.edge', 'SELECT taskshed.next_wakeup()'), ('_taskshed.request', 'SELECT taskshed.next_wakeup()'), ('_taskshed.home', 'SELECT taskshed.next_wakeup()'), ('_taskshed.callback', $$SELECT taskshed.remove_callback('none')$$)) t (name, call)
	JOIN pg_attribute a ON a.attrelid = t.name AND a.attnum > 0;
SELECT tab, count(*) > 1 AS "has columns", bool_or(is_refused('SELECT', call)) AS "refused as they are" FROM columns GROUP BY tab ORDER BY tab::text;

-- No column can have another name,
SELECT tab, col FROM columns WHERE NOT is_refused(format('ALTER TABLE %s RENAME COLUMN %s TO other', tab, col), call);
-- no two the places of each other, not even those of one type,
SELECT a.tab, a.col, b.col AS "and"
FROM columns a JOIN columns b ON b.tab = a.tab AND b.atttypid = a.atttypid AND b.attnum > a.attnum
WHERE NOT is_refused(format('ALTER TABLE %1$s RENAME COLUMN %2$s TO other; ALTER TABLE %1$s RENAME COLUMN %3$s TO %2$s;
	ALTER TABLE %1$s RENAME COLUMN other TO %3$s', a.tab, a.col, b.col), a.call);
-- and none may be more.
SELECT DISTINCT tab FROM columns WHERE NOT is_refused(format('ALTER TABLE %s ADD COLUMN more text', tab), call);
-- What makes no difference is none.
SELECT tab, is_refused(format('ALTER TABLE %s SET (fillfactor = 90)', tab), call) AS refused
FROM columns WHERE attnum = 1 ORDER BY tab::text;
SELECT taskshed.next_wakeup();
