
# What limits a run and what stops it: timeouts, cancel_task, attempts and
# their delays, until, max_runs, start_within, pause_after_failures; and what
# makes it run again: run_tasks and retry_tasks.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('limits');

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
ALTER DATABASE postgres SET timezone = 'UTC';

-- Takes its time; if it is stubborn, nothing but the end of its process stops it.
CREATE FUNCTION take(what text, seconds float8, stubborn boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + make_interval(secs => seconds);
BEGIN
	PERFORM public.note(what);
	WHILE clock_timestamp() < until LOOP
		BEGIN
			PERFORM pg_sleep(least(seconds, 1));
		EXCEPTION WHEN query_canceled THEN
			IF NOT stubborn THEN
				RAISE;
			END IF;
		END;
	END LOOP;
END $$;

-- Fails so many times, and says at which attempt it is.
CREATE FUNCTION stumble(failures integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	me record := taskshed.current_task();
BEGIN
	IF me.attempt <= failures THEN
		RAISE EXCEPTION 'attempt %', me.attempt;
	END IF;
	PERFORM public.note(me.task_id, me.run_at);
	RETURN me.attempt;
END $$;

CREATE FUNCTION beat() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	me record := taskshed.current_task();
BEGIN
	PERFORM public.note(me.task_id, me.run_at);
	RETURN me.lag >= interval '0';
END $$;

CREATE FUNCTION fail() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'on purpose';
END $$;
});

#
# Time limits
#
app(q{add_task('take', kwargs => '{"what": "long", "seconds": 600}', task_id => 'long', timeout => '0.3 s')}
);
await_state($node, 'long', 'failed');
is( state_of($node, 'long'),
	'failed|1|1|timeout|57014',
	'a run is ended by its timeout');
is(runs_of($node, 'long'),    'timeout 1', 'and recorded as that');
is(effects_of($node, 'long'), '0',         'with no effect');
like(
	query(
		q{SELECT extract(epoch FROM finished_at - started_at), message FROM taskshed.runs WHERE task_id = 'long'}
	),
	qr/^\d+\.\d+\|the run took longer than its timeout$/,
	'and a message of its own');
cmp_ok(
	query(
		q{SELECT extract(epoch FROM finished_at - started_at) FROM taskshed.runs WHERE task_id = 'long'}
	),
	'>=', 0.3,
	'it had its time');

app(q{add_task('take', kwargs => '{"what": "in time", "seconds": 0.01}', task_id => 'in time', timeout => '10 min')}
);
await_no_task($node, 'in time');
is(runs_of($node, 'in time'),
	'succeeded 1', 'a run that keeps its limit succeeds');

app(q{add_task('take', kwargs => '{"what": "again", "seconds": 600}', task_id => 'again', timeout => '50 ms',
	max_attempts => 3, retry_delay => '10 ms')});
await_state($node, 'again', 'failed');
is( runs_of($node, 'again'),
	'timeout 1, timeout 2, timeout 3',
	'a timeout uses an attempt');

set_and_reload($node, 'taskshed.timeout' => '200ms');
$node->poll_query_until('postgres', q{SHOW taskshed.timeout}, '200ms');
app(q{add_task('take', kwargs => '{"what": "default", "seconds": 600}', task_id => 'default')}
);
app(q{add_task('take', kwargs => '{"what": "own", "seconds": 0.5}', task_id => 'own', timeout => '0')}
);
await_state($node, 'default', 'failed');
is(runs_of($node, 'default'), 'timeout 1', 'taskshed.timeout is the default');
await_no_task($node, 'own');
is(runs_of($node, 'own'),
	'succeeded 1', 'timeout => 0 means none, in spite of it');
set_and_reload($node, 'taskshed.timeout' => undef);

# Deferred triggers are within the limit.
query(
	q{
CREATE TABLE deferred (what text);
GRANT ALL ON deferred TO PUBLIC;
CREATE FUNCTION sleep_at_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(600);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER sleep AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION sleep_at_end();
CREATE FUNCTION defer() RETURNS void LANGUAGE sql AS 'INSERT INTO public.deferred VALUES (1)';
});
app(q{add_task('defer', task_id => 'deferred', timeout => '0.1 s')});
await_state($node, 'deferred', 'failed');
is(runs_of($node, 'deferred'), 'timeout 1', 'so are deferred triggers');

# One that swallows the cancel has its worker terminated.
app(q{add_task('take', kwargs => '{"what": "stubborn", "seconds": 600, "stubborn": true}', task_id => 'stubborn', timeout => '0.2 s')}
);
app(q{add_task('beat', task_id => 'beside', every => '50 ms', catch_up => 'all')}
);
await_state($node, 'stubborn', 'failed');
is(state_of($node, 'stubborn'),
	'failed|1|1|timeout|57014',
	'a callback that swallows the cancel is ended, too');
is(runs_of($node, 'stubborn'),    'timeout 1', 'and recorded as timed out');
is(effects_of($node, 'stubborn'), '0',         'with no effect');
diag(
	'it was ended after '
	  . query(
		q{SELECT finished_at - started_at FROM taskshed.runs WHERE task_id = 'stubborn'}
	  ));
is( query(
		q{SELECT count(*) FROM taskshed.runs b JOIN taskshed.runs s ON s.task_id = 'stubborn'
		WHERE b.task_id = 'beside' AND b.status = 'succeeded' AND b.started_at BETWEEN s.started_at AND s.finished_at}
	) > 20,
	1,
	'another task ran meanwhile');
app(q{remove_task('beside')});

#
# Cancelling
#
app(q{add_task('take', kwargs => '{"what": "once", "seconds": 600}', task_id => 'once', max_attempts => 5)}
);
await_state($node, 'once', 'running');
is(app(q{cancel_task('once')}), 't', 'cancel_task says that it has');
await_state($node, 'once', 'failed');
is(state_of($node, 'once'),
	'failed|1|1|cancelled|57014', 'a cancelled one-off task has failed');
is(app(q{cancel_task('once')}),   'f', 'nothing is running any more');
is(app(q{cancel_task('nobody')}), 'f', 'nor is an unknown task');
is(app(q{retry_task('once')}),    't', 'it can be retried');
await_state($node, 'once', 'running');
is(app(q{pause_task('once')}),  't', 'paused while it is running');
is(app(q{cancel_task('once')}), 't', 'and cancelled');
await_state($node, 'once', 'failed');
is( runs_of($node, 'once'),
	'cancelled 1, cancelled 1',
	'attempts left are not used after a cancel');
is(effects_of($node, 'once'), '0', 'nor is there an effect');

app(q{add_task('take', '2020-01-01', '{"what": "daily", "seconds": 600}', every => '1 day', task_id => 'daily', max_attempts => 5)}
);
await_state($node, 'daily', 'running');
is(app(q{cancel_tasks(ARRAY['daily', 'once', 'daily'])}),
	'1', 'cancel_tasks counts what was running');
await_state($node, 'daily', 'scheduled');
is( state_of($node, 'daily'),
	'scheduled|0|1|cancelled|57014',
	'a cancelled recurring task goes on');
is( query(
		q{SELECT run_at > now() AND run_at <= now() + interval '1 day' AND run_at::time = '00:00'
		FROM taskshed.tasks WHERE task_id = 'daily'}
	),
	't',
	'at its next time');

# A stubborn one is cancelled as often as one likes; other roles can't.
app(q{add_task('take', kwargs => '{"what": "mine", "seconds": 600}', task_id => 'mine')}
);
await_state($node, 'mine', 'running');
query('CREATE ROLE other LOGIN');
my ($rc, $out, $err) = $node->psql('postgres',
	q{SET ROLE other; SELECT taskshed.cancel_task('mine', 'app')});
like(
	$err,
	qr/permission denied|must be (a )?member/i,
	'nobody else can cancel it');
is(query(q{SET ROLE other; SELECT taskshed.cancel_task('mine')}),
	'f', 'nor does that mean somebody else\'s task');
is(state_of($node, 'mine'), 'running|0|0||', 'it is running');
is(query(q{SELECT taskshed.cancel_task('mine', 'app')}),
	't', 'a superuser can');
await_state($node, 'mine', 'failed');

# Cancels raced against runs that end: who is told that a run was stopped is
# told the truth or was just too late, and no other run is ever hit.
set_and_reload($node, 'taskshed.max_workers' => 2);
query(
	q{
CREATE TABLE asked (task_id text, yes boolean);
CREATE FUNCTION brief(n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.ledger (what) VALUES ('race ' || n);
	IF n % 8 IN (0, 3) THEN
		PERFORM pg_sleep(0.002);
	END IF;
	FOR i IN 1 .. (n % 5) * 200 LOOP NULL; END LOOP;
END $$;

-- Cancels what is running, if its number is odd, until all is done.
CREATE PROCEDURE cancel_many() LANGUAGE plpgsql AS $$
DECLARE
	t text;
BEGIN
	WHILE EXISTS (SELECT FROM taskshed.tasks WHERE task_id LIKE 'race %' AND state <> 'failed') LOOP
		FOR i IN 1 .. 50 LOOP
			FOR t IN SELECT x.task_id FROM taskshed.tasks x
				WHERE x.state = 'running' AND x.task_id ~ '^race .*[13579]$'
			LOOP
				INSERT INTO asked VALUES (t, taskshed.cancel_task(t, 'app'));
				COMMIT;
			END LOOP;
			-- those that are about to begin
			FOR t IN SELECT x.task_id FROM _taskshed.task x JOIN _taskshed.alarm a USING (id)
				WHERE x.task_id ~ '^race .*[13579]$' AND a.failed_at IS NULL ORDER BY a.run_at, a.id LIMIT 30
			LOOP
				INSERT INTO asked VALUES (t, taskshed.cancel_task(t, 'app'));
			END LOOP;
			COMMIT;
		END LOOP;
	END LOOP;
END $$});
app(q{add_tasks(jsonb_agg(jsonb_build_object('callback', 'brief', 'task_id', 'race ' || n,
	'run_at', clock_timestamp() + n * interval '1 ms',
	'kwargs', jsonb_build_object('n', n)))) FROM generate_series(1, 8000) AS n});
my @cancellers = map { session($node) } (1 .. 2);
$_->send('CALL cancel_many()') foreach @cancellers;
foreach (@cancellers)
{
	is($_->result, '', 'cancelling goes well');
	$_->quit;
}
is( query(
		q{SELECT task_id, status FROM taskshed.runs WHERE task_id ~ '^race .*[02468]$' AND status <> 'succeeded'}
	),
	'',
	'no run was hit that nobody has asked for');
is( query(
		q{SELECT task_id, status FROM taskshed.runs r WHERE task_id LIKE 'race %' AND status = 'cancelled'
		AND NOT EXISTS (SELECT FROM asked a WHERE a.task_id = r.task_id AND yes)}
	),
	'',
	'nor one whose canceller was told that it was not running');
is( query(
		q{SELECT status FROM taskshed.runs WHERE task_id LIKE 'race %' AND status NOT IN ('succeeded', 'cancelled')}
	),
	'',
	'all were cancelled or succeeded');
is( query(
		q{
		SELECT task_id, status FROM taskshed.runs LEFT JOIN ledger ON what = task_id
		WHERE task_id LIKE 'race %' AND (what IS NOT NULL) <> (status = 'succeeded')
		UNION ALL
		(SELECT 'race ' || n, 'missing' FROM generate_series(1, 8000) AS n
			EXCEPT ALL SELECT task_id, 'missing' FROM taskshed.runs)
		UNION ALL
		(SELECT task_id, 'more than once' FROM taskshed.runs WHERE task_id LIKE 'race %'
			GROUP BY task_id HAVING count(*) > 1)
		LIMIT 10}
	),
	'',
	'each ran once, and has its effect unless it was cancelled');
my $cancelled = query(
	q{SELECT count(*) FROM taskshed.runs WHERE task_id LIKE 'race %' AND status = 'cancelled'}
);
cmp_ok($cancelled, '>', 50, 'many were cancelled');
diag(
	"$cancelled runs cancelled of those that were asked for with "
	  . query(
		q{SELECT count(*) || ' calls, ' || count(*) FILTER (WHERE yes) || ' of which in time' FROM asked}
	  ));
is( query(q{SELECT count(*) FROM taskshed.tasks WHERE task_id LIKE 'race %'}),
	$cancelled, 'the cancelled ones have failed');
app(q{remove_all_tasks()});
set_and_reload($node, 'taskshed.max_workers' => undef);

#
# Attempts
#
app(q{add_task('stumble', kwargs => '{"failures": 2}', task_id => 'third time', max_attempts => 3, retry_delay => '0.2 s', retry_backoff => 3)}
);
await_no_task($node, 'third time');
is( runs_of($node, 'third time'),
	'failed 1, failed 2, succeeded 3',
	'a task is tried again');
is( query(
		q{SELECT bool_and(pause BETWEEN low AND low * 3) FROM
			(SELECT extract(epoch FROM started_at - lag(finished_at) OVER w),
				0.2 * 0.9 * 3 ^ (attempt - 2)
			FROM taskshed.runs WHERE task_id = 'third time' WINDOW w AS (ORDER BY finished_at, run_id)) AS x (pause, low)
		WHERE pause IS NOT NULL}
	),
	't',
	'after a delay that grows');
diag(
	'delays of 0.2 and 0.6 s were ' . query(
		q{SELECT string_agg(pause::text, ' ') FROM (SELECT started_at - lag(finished_at) OVER (ORDER BY finished_at, run_id)
		FROM taskshed.runs WHERE task_id = 'third time') AS x (pause)}
	));
is( query(
		q{SELECT count(DISTINCT scheduled_at) FROM taskshed.runs WHERE task_id = 'third time'}
	),
	'1',
	'all attempts are for the same time');

app(q{add_task('stumble', kwargs => '{"failures": 9}', task_id => 'capped', max_attempts => 6, retry_delay => '20 ms',
	retry_backoff => 1000, retry_max_delay => '40 ms')});
await_state($node, 'capped', 'failed');
is( runs_of($node, 'capped'),
	'failed 1, failed 2, failed 3, failed 4, failed 5, failed 6',
	'retry_max_delay is a limit for the delay');
is(state_of($node, 'capped'),
	'failed|6|1|failed|P0001', 'attempts used up: the task has failed');
is( query(q{SELECT last_error FROM taskshed.tasks WHERE task_id = 'capped'}),
	'attempt 6',
	'with the last error');

app(q{add_task('stumble', kwargs => '{"failures": 1}', task_id => 'only one')}
);
await_state($node, 'only one', 'failed');
is(runs_of($node, 'only one'),
	'failed 1', 'a task has one attempt by default');

app(q{add_task('stumble', kwargs => '{"failures": 12}', task_id => 'no limit', max_attempts => 0, retry_delay => '5 ms', retry_backoff => 1)}
);
await_no_task($node, 'no limit');
like(
	runs_of($node, 'no limit'),
	qr/failed 12, succeeded 13$/,
	'0 attempts: no limit');

# Attempts of a recurring task end before its next time, and do not move it.
app(q{add_task('stumble', '2020-01-01', '{"failures": 2}', every => '1 day', task_id => 'recovers',
	max_attempts => 3, retry_delay => '20 ms')});
await(
	$node,
	q{SELECT last_status = 'succeeded' FROM taskshed.tasks WHERE task_id = 'recovers'},
	'a recurring task recovers');
is( runs_of($node, 'recovers'),
	'failed 1, failed 2, succeeded 3',
	'a recurring task is tried again, too');
is( query(
		q{SELECT attempt, failures_in_row, run_count, run_at::time FROM taskshed.tasks WHERE task_id = 'recovers'}
	),
	'0|0|1|00:00:00',
	'its grid stays');
app(q{add_task('stumble', clock_timestamp(), '{"failures": 1}', every => '2 s', task_id => 'too late',
	max_attempts => 100, retry_delay => '1 min', retry_max_delay => '1 min')}
);
await(
	$node,
	q{SELECT count(*) >= 2 FROM taskshed.runs WHERE task_id = 'too late'},
	'two runs are over');
is( query(
		q{SELECT DISTINCT status, attempt FROM taskshed.runs WHERE task_id = 'too late'}
	),
	'failed|1',
	'an attempt after the next time is not made');
is( query(
		q{SELECT DISTINCT extract(epoch FROM b.scheduled_at - a.scheduled_at)::numeric % 2
		FROM taskshed.runs a, taskshed.runs b WHERE a.task_id = 'too late' AND b.task_id = 'too late'
			AND a.run_id < b.run_id}
	),
	'0.000000',
	'the next time is');
app(q{remove_task('too late')});

# A delay is varied: tasks that failed together do not come back together.
app(q{add_tasks(jsonb_agg(jsonb_build_object('callback', 'fail', 'task_id', 'crowd ' || n,
	'max_attempts', 2, 'retry_delay', '1 day', 'retry_max_delay', '1 day'))) FROM generate_series(1, 50) AS n}
);
await(
	$node,
	q{SELECT count(*) = 50 FROM taskshed.tasks WHERE task_id LIKE 'crowd %' AND attempt = 1},
	'all have failed');
is( query(
		q{SELECT count(DISTINCT run_at) = 50 AND max(run_at) - min(run_at) > interval '30 min'
			AND min(run_at) > now() + interval '21.5 h' AND max(run_at) < now() + interval '24.1 h'
		FROM taskshed.tasks WHERE task_id LIKE 'crowd %'}
	),
	't',
	'delays vary');
app(q{remove_all_tasks()});

# A lost deadlock or serialization conflict is tried again at once, uncounted.
query(
	q{
CREATE TABLE conflicts (n integer);
INSERT INTO conflicts VALUES (0);
CREATE SEQUENCE tries;
GRANT ALL ON conflicts, tries TO PUBLIC;
CREATE FUNCTION conflict(times integer) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	IF nextval('public.tries') <= times THEN
		RAISE SQLSTATE '40001';
	END IF;
	RETURN (taskshed.current_task()).attempt;
END $$});
app(q{add_task('conflict', kwargs => '{"times": 3}', task_id => 'conflict')});
await_no_task($node, 'conflict');
is( query(
		q{SELECT status, attempt, result FROM taskshed.runs WHERE task_id = 'conflict'}
	),
	'succeeded|1|1',
	'a serialization failure is tried again, uncounted');
query('ALTER SEQUENCE tries RESTART');
app(q{add_task('conflict', kwargs => '{"times": 1000}', task_id => 'conflict')}
);
await_state($node, 'conflict', 'failed');
is(runs_of($node, 'conflict'), 'succeeded 1, failed 1', 'but not for ever');
cmp_ok(query(q{SELECT last_value FROM tries}), '<=', 20, 'only a few times');

#
# until, max_runs, start_within
#
app(q{add_task('beat', clock_timestamp(), every => '100 ms', task_id => 'five', max_runs => 5)}
);
await_no_task($node, 'five');
is(effects_of($node, 'five'), '5', 'max_runs is the number of runs');
app(q{add_task('stumble', clock_timestamp(), '{"failures": 1}', every => '100 ms', task_id => 'five failures', max_runs => 5)}
);
await_state($node, 'five failures', 'failed');
is( runs_of($node, 'five failures'),
	'failed 1, failed 1, failed 1, failed 1, failed 1',
	'if the last one fails the task has failed');

# until is about the times that runs are for, itself one of them, and not about
# when they start.
app(q{add_task('beat', date_trunc('second', clock_timestamp()), every => '100 ms', task_id => 'until',
	until => date_trunc('second', clock_timestamp()) + interval '2 s', catch_up => 'all')}
);
await_no_task($node, 'until');
is( query(
		q{SELECT count(*), max(scheduled_at) - min(scheduled_at), string_agg(DISTINCT status, ', ')
		FROM taskshed.runs WHERE task_id = 'until'}
	),
	'21|00:00:02|succeeded',
	'until is the last time');
my %modes = (
	all      => 'succeeded 1, succeeded 1',
	coalesce => 'succeeded 1',
	skip     => 'missed 1, missed 1');
app(qq{add_task('beat', clock_timestamp(), every => '0.5 s', until => clock_timestamp() + '0.6 s',
	catch_up => '$_', paused => true, task_id => 'late $_')}
) foreach keys %modes;
await(
	$node,
	q{SELECT min(clock_timestamp() - until) > '1.1 s' FROM taskshed.tasks WHERE task_id LIKE 'late %'},
	'until is over');
app(qq{resume_task('late $_')}) foreach keys %modes;
await_no_task($node, 'late %');
is(runs_of($node, "late $_"), $modes{$_}, "catch_up $_, begun after until")
  foreach sort keys %modes;
app(q{add_task('beat', '2100-01-01', task_id => 'over', until => '2100-01-01')}
);
app(q{update_execution_time('over', clock_timestamp())});
await_no_task($node, 'over');
is(runs_of($node, 'over'),
	'succeeded 1', 'a task that is moved to before until runs');
app(q{add_task('beat', '2100-01-01', task_id => 'beyond', until => '2100-01-01', paused => true)}
);
query(
	q{UPDATE _taskshed.task SET until = '2000-01-01' WHERE task_id = 'beyond'}
);
app(q{update_execution_time('beyond', clock_timestamp())});
app(q{resume_task('beyond')});
await_state($node, 'beyond', 'failed');
is(runs_of($node, 'beyond'),
	'missed 1', 'one that is moved beyond it does not');
is( app(q{add_task('beat', '2020-01-01', task_id => 'too late', until => '2020-01-02')}
	),
	'too late',
	'a task whose times are over is no error');
is( app(q{add_task('beat', '2020-01-01', every => '1 day', task_id => 'long over', until => '2020-01-05', catch_up => 'all')}
	),
	'long over',
	'nor is one that recurs');
is( query(
		q{SELECT count(*) FROM taskshed.tasks WHERE task_id IN ('too late', 'long over')}
	),
	'0',
	'and neither is there');

app(q{add_task('beat', clock_timestamp() - interval '1 min', task_id => 'late', start_within => '10 s')}
);
await_state($node, 'late', 'failed');
is(runs_of($node, 'late'), 'missed 1', 'too late for start_within: missed');
app(q{add_task('beat', clock_timestamp() - interval '1 min', task_id => 'not too late', start_within => '10 min')}
);
await_no_task($node, 'not too late');
is(runs_of($node, 'not too late'), 'succeeded 1', 'within start_within: run');
app(q{add_task('beat', clock_timestamp() - interval '10.5 s', every => '1 s', task_id => 'some late', start_within => '5 s',
	catch_up => 'all', max_runs => 8)});
await(
	$node,
	q{SELECT count(*) FILTER (WHERE status = 'succeeded') = 8 FROM taskshed.runs WHERE task_id = 'some late'},
	'the others were run');
is( query(
		q{SELECT count(*) FILTER (WHERE status = 'missed') BETWEEN 5 AND 6,
			count(DISTINCT scheduled_at) = count(*), max(scheduled_at) - min(scheduled_at) = (count(*) - 1) * interval '1 s',
			max(scheduled_at) FILTER (WHERE status = 'missed') < min(scheduled_at) FILTER (WHERE status = 'succeeded'),
			bool_and(started_at IS NULL) FILTER (WHERE status = 'missed')
		FROM taskshed.runs WHERE task_id = 'some late'}
	),
	't|t|t|t|t',
	'of those that were missed those that were too late are recorded as such'
);
await_no_task($node, 'some late');

# A further attempt is late by its nature.
app(q{add_task('stumble', kwargs => '{"failures": 1}', task_id => 'second', max_attempts => 2, retry_delay => '1 s', start_within => '0.8 s')}
);
await_no_task($node, 'second');
is( runs_of($node, 'second'),
	'failed 1, succeeded 2',
	'attempts are not missed');

#
# pause_after_failures
#
set_and_reload($node, 'taskshed.pause_after_failures' => 3);
$node->poll_query_until('postgres', q{SHOW taskshed.pause_after_failures},
	'3');
app(q{add_task('fail', clock_timestamp(), every => '20 ms', task_id => 'hopeless')}
);
app(q{add_task('stumble', clock_timestamp(), '{"failures": 2}', every => '10 min', task_id => 'hopeful',
	max_attempts => 4, retry_delay => '10 ms')});
await_state($node, 'hopeless', 'paused');
is( query(
		q{SELECT failures_in_row, run_count, last_status FROM taskshed.tasks WHERE task_id = 'hopeless'}
	),
	'3|3|failed',
	'a recurring task is paused after so many failures in a row');
await(
	$node,
	q{SELECT last_status = 'succeeded' FROM taskshed.tasks WHERE task_id = 'hopeful'},
	'the other one succeeds');
is( query(
		q{SELECT state, failures_in_row FROM taskshed.tasks WHERE task_id = 'hopeful'}
	),
	'scheduled|0',
	'one that succeeds is not');
is(app(q{resume_task('hopeless')}), 't', 'it can be resumed');
await(
	$node,
	q{SELECT state = 'paused' AND run_count >= 4 FROM taskshed.tasks WHERE task_id = 'hopeless'},
	'it is paused at its next failure');
set_and_reload($node, 'taskshed.pause_after_failures' => undef);
$node->poll_query_until('postgres', q{SHOW taskshed.pause_after_failures},
	'0');
app(q{remove_all_tasks()});

#
# run_tasks
#
sub extra_run
{
	my ($task_id) = @_;
	my $before = query(
		qq{SELECT run_at, state, attempt, run_count FROM taskshed.tasks WHERE task_id = '$task_id'}
	);
	my $n = query(
		qq{SELECT count(*) FROM taskshed.runs WHERE task_id = '$task_id' AND status = 'succeeded'}
	);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(app(qq{run_tasks(ARRAY['$task_id'])}), '1', "run_tasks($task_id)");
	await(
		$node,
		qq{SELECT count(*) = $n + 1 FROM taskshed.runs WHERE task_id = '$task_id' AND status = 'succeeded'},
		"$task_id has run");
	is( query(
			qq{SELECT run_at, state, attempt, run_count FROM taskshed.tasks WHERE task_id = '$task_id'}
		),
		$before,
		"$task_id is as before");
	return;
}

app(q{add_task('beat', 'tomorrow', every => '1 day', task_id => 'tomorrow')});
extra_run('tomorrow');
extra_run('tomorrow');
app(q{add_task('beat', 'tomorrow', task_id => 'once tomorrow')});
extra_run('once tomorrow');
app(q{add_task('beat', 'yesterday', task_id => 'asleep', paused => true)});
extra_run('asleep');
app(q{add_task('beat', 'yesterday', every => '1 day', task_id => 'asleep daily', paused => true)}
);
extra_run('asleep daily');
app(q{add_task('stumble', kwargs => '{"failures": 0}', task_id => 'broken')});
await_no_task($node, 'broken');
query(
	q{CREATE TABLE broken (); CREATE FUNCTION may_fail() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN IF to_regclass('public.broken') IS NOT NULL THEN RAISE 'broken'; END IF; PERFORM public.note('may fail'); END $$}
);
app(q{add_task('may_fail', task_id => 'broken one')});
await_state($node, 'broken one', 'failed');
query('DROP TABLE broken');
extra_run('broken one');
is( state_of($node, 'broken one'),
	'failed|1|1|succeeded|',
	'a failed task stays so');
is(app(q{run_tasks(ARRAY['nobody'])}), '0', 'an unknown task is not run');
is( query(
		q{SELECT task_id, scheduled_at, started_at, result FROM taskshed.runs
		WHERE task_id IN ('tomorrow', 'once tomorrow', 'asleep', 'asleep daily') AND status = 'succeeded'
			AND (scheduled_at > started_at OR result = 'false')}
	),
	'',
	'an extra run is for the time at which it was asked for');

# A run by hand says how it went: what needed attention does not after a repair
# that was seen to work.  It is none of those that the schedule has.
my $in_row =
  q{SELECT failures_in_row FROM taskshed.tasks WHERE task_id = 'repaired'};
query('CREATE TABLE broken ()');
app(q{add_task('may_fail', clock_timestamp() - interval '10 min', every => '1 day', task_id => 'repaired')}
);
await(
	$node,
	q{SELECT run_count = 1 FROM taskshed.tasks WHERE task_id = 'repaired'},
	'the run of the schedule is over');
is(state_of($node, 'repaired'), 'scheduled|0|1|failed|P0001',
	'it has failed');
app(q{run_tasks(ARRAY['repaired'])});
await(
	$node,
	q{SELECT count(*) = 2 FROM taskshed.runs WHERE task_id = 'repaired'},
	'the run by hand is over');
is(state_of($node, 'repaired'),
	'scheduled|0|1|failed|P0001',
	'a failure by hand is none of the schedule');
is(query($in_row), '1', 'nor a further one in a row');
query('DROP TABLE broken');
app(q{run_tasks(ARRAY['repaired'])});
await(
	$node,
	q{SELECT count(*) = 3 FROM taskshed.runs WHERE task_id = 'repaired'},
	'so is the next');
is( state_of($node, 'repaired'),
	'scheduled|0|1|succeeded|',
	'it says how it went');
is(query($in_row), '0', 'a success clears the failures');
is( query(
		q{SELECT string_agg(status || ' ' || by_hand, ', ' ORDER BY finished_at, run_id) FROM taskshed.runs WHERE task_id = 'repaired'}
	),
	'failed false, failed true, succeeded true',
	'the history says what was run by hand');
is( query(
		q{SELECT last_run_at = (SELECT max(started_at) FROM taskshed.runs r WHERE r.task_id = t.task_id)
		FROM taskshed.tasks t WHERE task_id = 'repaired'}),
	't',
	'so does last_run_at');

my $holder = session($node);

# Replacing a task while it is run beside its schedule leaves the schedule.
$holder->query('SELECT pg_advisory_lock(1)');
my $deploy =
  q{add_task('hold', '%s', '{"what": "%s"}', every => '1 day', task_id => 'deployed')};
app(sprintf($deploy, '2100-01-01', 'deployed'));
app(q{run_tasks(ARRAY['deployed'])});
await_blocked($node, 1);
(my $again = sprintf($deploy, '', 'deployed again')) =~ s/'', /kwargs => /;
app($again);
$holder->query('SELECT pg_advisory_unlock(1)');
await(
	$node,
	q{SELECT state = 'scheduled' FROM taskshed.tasks WHERE task_id = 'deployed'},
	'the run beside the schedule has ended');
is( query(
		q{SELECT (SELECT string_agg(what, ', ') FROM ledger WHERE what LIKE 'deployed%'), run_at = '2100-01-01', run_count
		FROM taskshed.tasks WHERE task_id = 'deployed'}),
	'deployed|t|0',
	'a task replaced during a run beside its schedule keeps its time');
app(q{remove_task('deployed')});

# Never beside a run of the same task.
$holder->query('SELECT pg_advisory_lock(7)');
app(q{add_task('hold', 'yesterday', '{"what": "held", "lock": 7}', every => '1 day', task_id => 'held')}
);
await_blocked($node, 1, 7);
is(app(q{run_tasks(ARRAY['held'])}), '1', 'asked for while it is running');
app(q{add_task('beat', task_id => 'after')});
await_no_task($node, 'after');
await_blocked($node, 1, 7);
is(query(q{SELECT running, due FROM taskshed.status}),
	'1|0', 'it does not run beside itself');
$holder->query('SELECT pg_advisory_unlock(7)');
await(
	$node,
	q{SELECT count(*) = 2 FROM taskshed.runs WHERE task_id = 'held'},
	'it runs again after that');
is( query(
		q{SELECT run_count, run_at = date_trunc('day', run_at), run_at > now() FROM taskshed.tasks WHERE task_id = 'held'}
	),
	'1|t|t',
	'the schedule goes on as it was');
is(effects_of($node, 'held'), '2', 'two runs');
app(q{remove_all_tasks()});

#
# retry_tasks
#
query('CREATE TABLE broken ()');
app(qq{add_task('may_fail', task_id => 'retry $_', group_id => 'g', max_attempts => 2, retry_delay => '5 ms')}
) foreach (1 .. 3);
app(q{add_task('beat', 'tomorrow', task_id => 'fine', group_id => 'g')});
await(
	$node,
	q{SELECT count(*) FILTER (WHERE state = 'failed') = 3 FROM taskshed.tasks WHERE group_id = 'g'},
	'three have failed');
is(app(q{retry_tasks(group_id => 'g')}),
	'3', 'retry_tasks counts those that had failed');
await(
	$node,
	q{SELECT count(*) FILTER (WHERE state = 'failed') = 3 FROM taskshed.tasks WHERE group_id = 'g'},
	'they fail again');
is( runs_of($node, 'retry 1'),
	'failed 1, failed 2, failed 1, failed 2',
	'the attempts are counted anew');
query('DROP TABLE broken');
is(app(q{retry_task('retry 1')}), 't', 'retry_task');
is( app(q{retry_tasks(ARRAY['retry 2', 'retry 3', 'fine', 'nobody', NULL])}),
	'2', 'retry_tasks by name');
await_no_task($node, 'retry %');
is(app(q{retry_task('fine')}), 'f', 'what has not failed is not retried');
is(state_of($node, 'fine'),    'scheduled|0|0||', 'and stays as it is');

$node->stop;
done_testing();
