-- What "make demo" shows: each chapter can be copied into psql.
--
-- demo.note() in the callbacks writes a line for each run, and CALL demo.show_runs(n) waits for
-- the next n lines and prints them; both are in demo-setup.sql and no part of taskshed.

\echo
\echo '=== 1. Run a function in two seconds'
\echo

CREATE FUNCTION add(a integer, b integer) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    PERFORM demo.note(format('add(%s, %s) = %s', a, b, a + b));
    RETURN a + b;
END $$;

SELECT taskshed.add_task(
    callback => 'add',
    run_at   => now() + interval '2 seconds',
    kwargs   => '{"a": 1, "b": 2}');

CALL demo.show_runs(1);


\echo
\echo '=== 2. A heartbeat, every second'
\echo

CREATE FUNCTION heartbeat() RETURNS void LANGUAGE sql AS $$
    SELECT demo.note('heartbeat()');
$$;

SELECT taskshed.add_task('heartbeat', every => '1 second', task_id => 'heartbeat');

CALL demo.show_runs(4);

\echo
SELECT taskshed.remove_task('heartbeat');


\echo
\echo '=== 3. Five tasks in one call, and a name for the group'
\echo

SELECT taskshed.add_tasks(jsonb_agg(jsonb_build_object(
    'callback', 'add',
    'run_at',   now() + interval '4 seconds' + i * interval '0.5 seconds',
    'kwargs',   jsonb_build_object('a', i, 'b', 10),
    'task_id',  'task-' || i,
    'group_id', 'adding_numbers')))
FROM generate_series(0, 4) AS i;

SELECT task_id, run_at, kwargs, state
FROM taskshed.fetch_tasks(group_id => 'adding_numbers');


\echo
\echo '=== 4. Pause two of them, and have two others run earlier'
\echo

SELECT taskshed.pause_tasks(array['task-1', 'task-2']);

SELECT taskshed.update_execution_times(array[
    ('task-3', now() + interval '1 second'),
    ('task-4', now() + interval '2 seconds')
]::taskshed.task_execution_time[]);

SELECT task_id, run_at, kwargs, state
FROM taskshed.fetch_tasks(group_id => 'adding_numbers');

CALL demo.show_runs(3);

\echo
\echo 'Two are paused still. On they go:'
\echo
SELECT taskshed.resume_tasks(group_id => 'adding_numbers');

CALL demo.show_runs(2);


\echo
\echo '=== 5. Ten in the morning, in New York'
\echo

SELECT timestamptz '2025-03-14 10:00 America/New_York' AS "in UTC";

SELECT taskshed.add_task('add', '2035-03-14 10:00 America/New_York', '{"a": 3, "b": 14}',
                         task_id => 'pi_day');

SELECT task_id, run_at AT TIME ZONE 'UTC' AS "in UTC",
       run_at AT TIME ZONE 'America/New_York' AS "in New York"
FROM taskshed.fetch_task('pi_day');


\echo
\echo '=== 6. An order comes in, its trigger schedules a reminder'
\echo

CREATE TABLE orders (id serial PRIMARY KEY, customer text NOT NULL);

CREATE FUNCTION remind(order_id integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM demo.note(format('remind(order_id => %s), to %s', order_id,
                             (SELECT customer FROM orders WHERE id = order_id)));
END $$;

CREATE FUNCTION schedule_reminder() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM taskshed.add_task('remind', now() + interval '1.5 seconds',
                              jsonb_build_object('order_id', new.id));
    RETURN new;
END $$;

CREATE TRIGGER schedule_reminder AFTER INSERT ON orders
    FOR EACH ROW EXECUTE FUNCTION schedule_reminder();

INSERT INTO orders (customer) VALUES ('Ada');

BEGIN;
INSERT INTO orders (customer) VALUES ('Grace');
ROLLBACK;

\echo 'Ada gets her reminder. The order that was rolled back never was, and neither was its task.'
\echo
CALL demo.show_runs(1);


\echo
\echo '=== 7. A callback fails'
\echo

CREATE FUNCTION charge(order_id integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'card declined' USING ERRCODE = 'PAY01', DETAIL = format('Order %s.', order_id);
END $$;

SELECT taskshed.add_task('charge', kwargs => '{"order_id": 1}', task_id => 'charge-1');

CALL demo.wait_for_failure('charge-1');

\echo 'The task stays, for somebody to look at it:'
\echo
SELECT task_id, state, last_sqlstate, last_error, kwargs FROM taskshed.tasks WHERE state = 'failed';

\echo 'The server log has one line:'
\echo
\! grep 'card declined' "$DEMO_LOG"


\echo
\echo '=== 8. How is it doing?'
\echo

SELECT state, workers, running, due, failed, runs_ok, runs_failed, next_wakeup
FROM taskshed.status \gx
