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
END $do$;
