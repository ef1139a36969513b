-- What "make demo" has ready before scripts/demo.sql begins: a role and a database of an imaginary
-- shop, and a log of all runs.

CREATE ROLE app LOGIN;
CREATE DATABASE shop OWNER app;
\connect shop
CREATE EXTENSION taskshed;
GRANT USAGE ON SCHEMA taskshed TO app;

SET ROLE app;

CREATE SCHEMA demo;
CREATE TABLE demo.log (
    id      bigserial PRIMARY KEY,
    what    text NOT NULL,
    planned timestamptz NOT NULL,       -- when the run was to start
    started timestamptz NOT NULL,
    shown   boolean NOT NULL DEFAULT false
);

-- Called by the callbacks: who was called, and how late after its time?
CREATE FUNCTION demo.note(what text, started timestamptz DEFAULT clock_timestamp()) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO demo.log (what, planned, started)
    SELECT note.what, t.run_at, note.started
    FROM taskshed.tasks AS t
    WHERE t.worker_pid = pg_backend_pid();      -- the task that is running here
$$;

-- Print the next n lines of the log as they come.
CREATE PROCEDURE demo.show_runs(n integer) LANGUAGE plpgsql AS $$
DECLARE
    give_up constant timestamptz := clock_timestamp() + interval '15 seconds';
    line    demo.log;
BEGIN
    WHILE n > 0 LOOP
        UPDATE demo.log SET shown = true
        WHERE id = (SELECT min(id) FROM demo.log WHERE NOT shown)
        RETURNING * INTO line;
        IF FOUND THEN
            RAISE INFO '  %   %   % ms after its time',
                to_char(line.started, 'HH24:MI:SS.MS'), rpad(line.what, 32),
                to_char(extract(epoch FROM line.started - line.planned) * 1000, '99990.0');
            n := n - 1;
        ELSIF clock_timestamp() > give_up THEN
            RAISE EXCEPTION 'waited 15 seconds for a run';
        ELSE
            PERFORM pg_sleep(0.05);
        END IF;
    END LOOP;
END $$;

-- Wait until a task has failed.
CREATE PROCEDURE demo.wait_for_failure(task_id text) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 300 LOOP
        IF (SELECT t.state FROM taskshed.fetch_task(wait_for_failure.task_id) AS t) = 'failed' THEN
            RETURN;
        END IF;
        PERFORM pg_sleep(0.05);
    END LOOP;
    RAISE EXCEPTION 'waited 15 seconds for a failure';
END $$;
