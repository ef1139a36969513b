-- What the tasks do, and what the plain loop needs.  Put into each database of bench/run.pl; the
-- parts about tables of taskshed only where there are some.
SET client_min_messages = warning;

-- Effects: one row for each run that had one.  There is no unique constraint, since a second effect of
-- the same task must be seen.
CREATE TABLE ledger (n integer, planned timestamptz, started timestamptz);
GRANT ALL ON ledger TO PUBLIC;

CREATE FUNCTION noop(n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
END $$;

CREATE FUNCTION effect(n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.ledger (n) VALUES (effect.n);
END $$;

-- The first thing it does is to look at the clock.
CREATE FUNCTION late(n integer, planned timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz := clock_timestamp();
BEGIN
	INSERT INTO public.ledger VALUES (late.n, late.planned, started);
END $$;

-- Adds n tasks for now, one after the other, so many ms apart, and notes when it was about to commit each:
-- that is when the lag begins.  With a prefix, each is for another role.
CREATE TABLE committed (n integer, at timestamptz);
CREATE PROCEDURE add_for_now(n integer, pause_ms double precision, role_prefix text DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
	at timestamptz;
BEGIN
	FOR i IN 0 .. n - 1 LOOP
		PERFORM pg_sleep(pause_ms / 1000);
		COMMIT;
		PERFORM taskshed.add_task('public.late', kwargs => jsonb_build_object('n', i, 'planned', null),
			owner => role_prefix || i);
		at := clock_timestamp();
		COMMIT;
		INSERT INTO committed VALUES (i, at);
	END LOOP;
END $$;

-- Adds n tasks of no effect, so many a second, each tenth of a second's a second before they are due.
CREATE PROCEDURE add_flow(n integer, rate integer, begins timestamptz) LANGUAGE plpgsql AS $$
DECLARE
	per_call integer := rate / 10;
BEGIN
	FOR i IN 0 .. n - 1 BY per_call LOOP
		PERFORM pg_sleep(extract(epoch FROM begins + interval '1 s' * i / rate - interval '1 s' - clock_timestamp()));
		COMMIT;
		PERFORM taskshed.add_task('public.noop', run_at => begins + interval '1 s' * j / rate,
			kwargs => jsonb_build_object('n', j), group_id => 'flow')
		FROM generate_series(i, i + per_call - 1) AS j;
		COMMIT;
	END LOOP;
END $$;

-- bench/sleep_until.c
CREATE FUNCTION sleep_until(timestamptz) RETURNS void LANGUAGE c STRICT AS :'sleep_until';

-- Looks every millisecond at how far WAL has been written and how far it is on disk, and goes on until the
-- latter has come up with the former, at that time or later.  It writes none itself before it is done.  (At
-- the beginning of a page the place at which the next record will be is behind the page's header.)
CREATE TABLE wal_seen (at timestamptz, written pg_lsn, flushed pg_lsn);
CREATE FUNCTION watch_wal(from_at timestamptz, to_at timestamptz) RETURNS SETOF wal_seen LANGUAGE plpgsql AS $$
DECLARE
	seen wal_seen;
BEGIN
	PERFORM sleep_until(from_at);
	LOOP
		seen.written := pg_current_wal_insert_lsn();
		IF (seen.written - '0/0') % 8192 IN (24, 40) THEN
			seen.written := seen.written - (seen.written - '0/0') % 8192;
		END IF;
		seen.at := clock_timestamp();
		seen.flushed := pg_current_wal_flush_lsn();
		RETURN NEXT seen;
		EXIT WHEN seen.at > to_at AND seen.flushed >= seen.written OR seen.at > to_at + interval '5 s';
		PERFORM sleep_until(seen.at + interval '1 ms');
	END LOOP;
END $$;

-- The rows of tasks in one table, with the two indexes that this needs, drained in batches of a hundred:
-- by a loop that calls the function for each, and by one statement a batch.
DO $do$
DECLARE
	callback text;
BEGIN
	IF to_regclass('_taskshed.task') IS NULL THEN
		RETURN;
	END IF;
	CREATE TABLE plain (run_at timestamptz NOT NULL, LIKE _taskshed.task);
	ALTER TABLE plain ADD PRIMARY KEY (id);
	CREATE INDEX plain_queue ON plain (run_at, id);
	FOREACH callback IN ARRAY ARRAY['noop', 'effect'] LOOP
		EXECUTE format($$
			CREATE PROCEDURE plain_loop_%1$s() LANGUAGE plpgsql AS $body$
			DECLARE
				task record;
				done bigint[];
			BEGIN
				LOOP
					done := '{}';
					FOR task IN
						SELECT id, kwargs FROM plain WHERE run_at <= clock_timestamp()
						ORDER BY run_at, id LIMIT 100 FOR UPDATE SKIP LOCKED
					LOOP
						PERFORM %1$s((task.kwargs->>'n')::integer);
						done := done || task.id;
					END LOOP;
					EXIT WHEN done = '{}';
					DELETE FROM plain WHERE id = ANY (done);
					COMMIT;
				END LOOP;
			END $body$;

			CREATE PROCEDURE plain_set_%1$s() LANGUAGE plpgsql AS $body$
			DECLARE
				found_some bigint;
			BEGIN
				LOOP
					WITH batch AS (
						SELECT id FROM plain WHERE run_at <= clock_timestamp()
						ORDER BY run_at, id LIMIT 100 FOR UPDATE SKIP LOCKED),
					gone AS (
						DELETE FROM plain WHERE id = ANY (ARRAY(SELECT id FROM batch)) RETURNING kwargs)
					SELECT count(%1$s((kwargs->>'n')::integer)) INTO found_some FROM gone;
					EXIT WHEN found_some = 0;
					COMMIT;
				END LOOP;
			END $body$ $$, callback);
	END LOOP;

	-- One task after the other, each when it is due, in a transaction like that of a run: its row is found by
	-- its id, and deleted or put to its next time, and there is a record of it with an index entry.  (Which
	-- row is next is known beforehand: to look for the earliest each time costs twice as much, since the
	-- index is full of those that were there before.)
	CREATE TABLE plain_run (LIKE _taskshed.run_0);
	CREATE INDEX plain_run_task ON plain_run (task_id);
	CREATE SEQUENCE plain_run_seq CACHE 64;
	CREATE PROCEDURE plain_on_time(n integer, begins timestamptz, step interval, recurring boolean)
	LANGUAGE plpgsql AS $body$
	DECLARE
		ids bigint[] := ARRAY(SELECT id FROM plain ORDER BY run_at, id);
		task record;
		started timestamptz;
	BEGIN
		FOR i IN 0 .. n - 1 LOOP
			PERFORM sleep_until(begins + i * step);
			started := clock_timestamp();
			IF recurring THEN
				UPDATE plain SET run_at = run_at + every WHERE id = ids[1 + i % cardinality(ids)]
				RETURNING run_at - every AS run_at, kwargs, owner, task_id, group_id, callback INTO STRICT task;
			ELSE
				DELETE FROM plain WHERE id = ids[1 + i]
				RETURNING run_at, kwargs, owner, task_id, group_id, callback INTO STRICT task;
			END IF;
			PERFORM effect((task.kwargs->>'n')::integer);
			INSERT INTO plain_run (run_id, scheduled_at, started_at, finished_at, owner, attempt, worker_pid,
				status, task_id, group_id, callback)
			VALUES (nextval('plain_run_seq'), task.run_at, started, clock_timestamp(), task.owner, 1, pg_backend_pid(),
				'succeeded', task.task_id, task.group_id, task.callback);
			COMMIT;
		END LOOP;
	END $body$;
END $do$;
