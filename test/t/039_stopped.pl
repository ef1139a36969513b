
# How runs end that are stopped, put off or asked for again just when something
# else is going on with them: cancels while a run steps aside, while it waits
# at its end, and of callbacks that do not take the first one seriously; runs
# beside the schedule during other runs; attempts at the limits of their time
# and number; and what all that leaves in the log and in the counts.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'stopped', conf => q{
taskshed.max_interruptions = 2
taskshed.pause_after_failures = 2
});

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE SEQUENCE tries;
CREATE SEQUENCE caught;
GRANT ALL ON tries, caught TO PUBLIC;

-- Loses so many races, whoever tries.
CREATE FUNCTION conflict(times integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF nextval('public.tries') <= times THEN
		RAISE SQLSTATE '40001';
	END IF;
END $$;

-- Waits for so many tries and returns at once.
CREATE PROCEDURE await_tries(n integer) LANGUAGE plpgsql AS $$
DECLARE
	last bigint;
BEGIN
	LOOP
		SELECT last_value INTO last FROM public.tries;
		EXIT WHEN last >= n OR NOT EXISTS (
			SELECT FROM taskshed.tasks t WHERE task_id LIKE 'aside%' AND t.state <> 'failed');
		PERFORM pg_sleep(0.001);
	END LOOP;
END $$;

-- Takes the first cancel for a mistake.
CREATE FUNCTION think_twice(lock integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		PERFORM pg_advisory_xact_lock_shared(lock);
	EXCEPTION WHEN query_canceled THEN
		PERFORM nextval('public.caught');
		PERFORM pg_advisory_xact_lock_shared(lock);
	END;
	PERFORM public.note('thought twice');
END $$;

-- Nothing but the end of its process stops it.
CREATE FUNCTION ignore() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		BEGIN
			PERFORM pg_sleep(600);
		EXCEPTION WHEN query_canceled THEN
			NULL;
		END;
	END LOOP;
END $$;

CREATE FUNCTION terminate_me() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_terminate_backend(pg_backend_pid());
	PERFORM pg_sleep(600);
END $$;

CREATE FUNCTION fail() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'on purpose';
END $$;

-- Fails so many times, and says at which attempt it is.
CREATE FUNCTION stumble(failures integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	me record := taskshed.current_task();
BEGIN
	IF me.attempt <= failures THEN
		RAISE EXCEPTION 'attempt %', me.attempt;
	END IF;
	PERFORM public.note(me.task_id);
	RETURN me.attempt;
END $$;

CREATE TABLE broken ();
CREATE FUNCTION may_fail(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF to_regclass('public.broken') IS NOT NULL THEN
		RAISE EXCEPTION 'broken';
	END IF;
	PERFORM public.note(what);
END $$;
});

# The worker that has run, or runs, a task last.
sub worker_of
{
	my ($task_id) = @_;
	return query(
		qq{SELECT coalesce((SELECT worker_pid FROM taskshed.tasks WHERE task_id = '$task_id'),
			(SELECT worker_pid FROM taskshed.runs WHERE task_id = '$task_id' ORDER BY finished_at DESC, run_id DESC LIMIT 1))}
	);
}

# Is a worker still there, once another task has run?
my $n_after = 0;

sub worker_goes_on
{
	my ($pid, $how) = @_;
	my $what = 'after ' . ++$n_after;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	app(qq{add_task('note', kwargs => '{"what": "$what"}', task_id => '$what')}
	);
	await_no_task($node, $what);
	is( query(
			qq{SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND backend_type = 'taskshed worker'}
		),
		'1', $how);
	return;
}

my $holder = session($node);

#
# A run that has stepped aside from a conflict
#
# It waits for longer and longer there, so that is where the call finds it.
# Should it come too late, on a machine that is busy, the next one may not.
#
sub stop_aside
{
	my ($task_id, $times, $options, $stop, $too_late) = @_;

	foreach my $round (1 .. 20)
	{
		query('ALTER SEQUENCE tries RESTART');
		app(qq{add_task('conflict', kwargs => '{"times": $times}', task_id => '$task_id $round', $options)}
		);
		my $said = query("CALL await_tries(5); SELECT $stop");
		await(
			$node,
			qq{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE task_id = '$task_id $round' AND state <> 'failed')},
			"$task_id $round is over");
		return ("$task_id $round", $said)
		  if query(
			qq{SELECT sqlstate FROM taskshed.runs WHERE task_id = '$task_id $round' ORDER BY finished_at, run_id LIMIT 1}
		  ) ne '40001';
	}
	fail("$task_id could be stopped in time");
	return ("$task_id 20", '');
}

my ($aside, $said) = stop_aside(
	'aside cancel',
	1000,
	q{max_attempts => 3, retry_delay => '5 ms'},
	q{taskshed.cancel_task(task_id, 'app') FROM taskshed.tasks WHERE task_id LIKE 'aside cancel %' AND state <> 'failed'}
);
is($said, 't', 'a run that has stepped aside can be cancelled');
is(state_of($node, $aside),
	'failed|1|1|cancelled|57014',
	'it has failed as any run that is cancelled');
is(runs_of($node, $aside),
	'cancelled 1', 'it was not interrupted, nor run again');
my $tries = query('SELECT last_value FROM tries');
worker_goes_on(worker_of($aside), 'its worker goes on');
is(query('SELECT last_value FROM tries'), $tries, 'nothing calls it again');

($aside, $said) = stop_aside(
	'aside session',
	6,
	q{max_attempts => 2, retry_delay => '5 ms'},
	q{pg_cancel_backend(worker_pid) FROM taskshed.tasks WHERE task_id LIKE 'aside session %' AND state = 'running'}
);
is( runs_of($node, $aside),
	'failed 1, succeeded 2',
	'pg_cancel_backend of a run that has stepped aside uses an attempt');
is( query(
		qq{SELECT sqlstate, count(*) OVER () FROM taskshed.runs WHERE task_id = '$aside' ORDER BY finished_at, run_id LIMIT 1}
	),
	'57014|2',
	'with 57014');
worker_goes_on(
	query(
		qq{SELECT worker_pid FROM taskshed.runs WHERE task_id = '$aside' ORDER BY finished_at, run_id LIMIT 1}
	),
	'and its worker goes on, too');

#
# A callback that catches the first cancel
#
$holder->query('SELECT pg_advisory_lock(5)');
app(q{add_task('think_twice', kwargs => '{"lock": 5}', task_id => 'think twice')}
);
await_blocked($node, 1, 5);
is(app(q{cancel_task('think twice')}), 't', 'cancelled');
await($node, 'SELECT is_called FROM caught', 'the callback has caught that');
await_blocked($node, 1, 5);
is(state_of($node, 'think twice'),     'running|0|0||', 'it goes on');
is(app(q{cancel_task('think twice')}), 't',             'cancelled again');
await_state($node, 'think twice', 'failed');
is(state_of($node, 'think twice'),
	'failed|1|1|cancelled|57014', 'that has helped');
is(runs_of($node, 'think twice'),      'cancelled 1', 'it was one run');
is(effects_of($node, 'thought twice'), '0',           'with no effect');
$holder->query('SELECT pg_advisory_unlock(5)');

#
# A run whose callback is done, and which waits for somebody's change of it
#
my $pauser = session($node);

$holder->query('SELECT pg_advisory_lock(1)');
app(q{add_task('hold', kwargs => '{"what": "done"}', task_id => 'done')});
await_blocked($node, 1);
my $worker = worker_of('done');
$pauser->query('SET ROLE app');
$pauser->query('BEGIN');
is($pauser->query(q{SELECT taskshed.pause_task('done')}), 't', 'paused');
$holder->query('SELECT pg_advisory_unlock(1)');
await(
	$node,
	qq{SELECT count(*) = 1 FROM pg_locks WHERE pid = $worker AND NOT granted AND locktype <> 'advisory'},
	'its run waits for the end of that');
is(app(q{cancel_task('done')}),
	'f', 'a run whose callback is done is not cancelled');
is(query("SELECT pg_cancel_backend($worker)"), 't', 'its session may be');
is($pauser->query('ROLLBACK'), '', 'the pause is rolled back');
await_no_task($node, 'done');
is(runs_of($node, 'done'),    'succeeded 1', 'the run has succeeded');
is(effects_of($node, 'done'), '1',           'once');
worker_goes_on($worker, 'and its worker goes on');
$pauser->quit;

#
# Runs beside the schedule that are asked for during a run
#
$holder->query('SELECT pg_advisory_lock(1)');
app(q{add_task('hold', kwargs => '{"what": "once more"}', task_id => 'once more')}
);
await_blocked($node, 1);
is(app(q{run_tasks(ARRAY['once more'])}), '1', 'asked for once more');
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'once more');
is( runs_of($node, 'once more'),
	'succeeded 1, succeeded 1',
	'a one-off task runs once more before it goes');
is(effects_of($node, 'once more'), '2', 'with both effects');

$holder->query('SELECT pg_advisory_lock(1)');
app(q{add_task('hold', 'yesterday', '{"what": "last run"}', every => '1 day', max_runs => 1, task_id => 'last run')}
);
await_blocked($node, 1);
is(app(q{run_tasks(ARRAY['last run'])}),
	'1', 'asked for during the last run');
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'last run');
is( runs_of($node, 'last run'),
	'succeeded 1, succeeded 1',
	'so does a recurring one after its last run');

$holder->query('SELECT pg_advisory_lock(1)');
app(q{add_task('hold', '2100-01-01', '{"what": "beside"}', every => '1 day', task_id => 'beside')}
);
is(app(q{run_tasks(ARRAY['beside'])}), '1', 'run beside its schedule');
await_blocked($node, 1);
is(app(q{run_tasks(ARRAY['beside'])}), '1', 'and asked for again meanwhile');
$holder->query('SELECT pg_advisory_unlock(1)');
await(
	$node,
	q{SELECT count(*) = 2 FROM taskshed.runs WHERE task_id = 'beside' AND status = 'succeeded'},
	'another run follows');
await_state($node, 'beside', 'scheduled');
is( query(
		q{SELECT run_count, run_at = '2100-01-01', resume_at IS NULL
		FROM _taskshed.task JOIN _taskshed.alarm USING (id) WHERE task_id = 'beside'}
	),
	'0|t|t',
	'the schedule is as it was');
worker_goes_on(worker_of('beside'), 'all is well');
is(effects_of($node, 'beside'), '2', 'no more runs follow');
app(q{remove_task('beside')});

#
# What is sent round again is not late
#
my %again = (
	'again retry'   => q{retry_task('again retry')},
	'again add'     => q{},
	'again replace' => q{, replace_existing => false},
	'again missed'  => q{retry_task('again missed')});

foreach my $task_id (sort keys %again)
{
	my $run_at =
	  $task_id =~ /missed/
	  ? q{clock_timestamp() - interval '1 hour'}
	  : 'NULL';
	my $add =
	  qq{add_task('may_fail', %s, '{"what": "$task_id"}', task_id => '$task_id', start_within => '1 second'};

	app(sprintf($add, $run_at) . ')');
	await_state($node, $task_id, 'failed');
	$again{$task_id} = sprintf($add, 'NULL') . "$again{$task_id})"
	  if $again{$task_id} !~ /retry/;
}
is( query(
		q{UPDATE _taskshed.alarm SET run_at = run_at - interval '1 hour', scheduled_at = scheduled_at - interval '1 hour';
		DROP TABLE broken;
		SELECT string_agg(task_id || ' ' || last_status, ', ' ORDER BY task_id COLLATE "C")
		FROM taskshed.tasks WHERE task_id LIKE 'again %'}
	),
	'again add failed, again missed missed, again replace failed, again retry failed',
	'all have failed, an hour ago');
foreach my $task_id (sort keys %again)
{
	app($again{$task_id});
	await(
		$node,
		qq{SELECT count(*) > 1 FROM taskshed.runs WHERE task_id = '$task_id'},
		"$task_id: another run is over");
	like(
		runs_of($node, $task_id),
		qr/^(failed|missed) 1, succeeded 1$/,
		"$task_id: runs though it was to be long before");
	is(effects_of($node, $task_id), '1', "$task_id: once");
}
app(q{remove_all_tasks()});

#
# Attempts
#
# An attempt is for the time of the first one, so until does not end them.
app(q{add_task('stumble', clock_timestamp(), '{"failures": 1}', task_id => 'no time left', until => clock_timestamp() + '0.1 s',
	max_attempts => 2, retry_delay => '0.5 s')});
await_no_task($node, 'no time left');
is( runs_of($node, 'no time left'),
	'failed 1, succeeded 2',
	'an attempt after until is made');
app(q{add_task('stumble', kwargs => '{"failures": 1}', task_id => 'time left', until => clock_timestamp() + '5 min',
	max_attempts => 2, retry_delay => '5 ms')});
await_no_task($node, 'time left');
is( runs_of($node, 'time left'),
	'failed 1, succeeded 2',
	'one that is due before that is made');

set_and_reload($node, 'taskshed.log_failures' => 'off');
await(
	$node,
	q{SELECT current_setting('taskshed.log_failures') = 'off'},
	'failures are not logged');
app(q{add_task('stumble', kwargs => '{"failures": 1100}', task_id => 'tireless', max_attempts => 0, retry_delay => '0',
	paused => true)}
);
query(q{UPDATE _taskshed.alarm SET attempt = 1098});
app(q{resume_task('tireless')});
await_no_task($node, 'tireless');
is( runs_of($node, 'tireless'),
	'failed 1099, failed 1100, succeeded 1101',
	'no delay is not much more, however many attempts there are');
set_and_reload($node, 'taskshed.log_failures' => undef);
await(
	$node,
	q{SELECT current_setting('taskshed.log_failures') = 'warning'},
	'failures are logged');

#
# pause_after_failures counts runs, not attempts
#
app(q{add_task('stumble', clock_timestamp(), '{"failures": 100}', every => '2 s', task_id => 'hopeless',
	max_attempts => 5, retry_delay => '5 ms', retry_backoff => 1)});
await_state($node, 'hopeless', 'paused');
is( query(
		q{SELECT failures_in_row, run_count, (SELECT count(DISTINCT scheduled_at) FROM taskshed.runs r WHERE r.task_id = t.task_id)
		FROM taskshed.tasks t WHERE task_id = 'hopeless'}),
	'2|2|2',
	'a recurring task is paused after so many runs of which all attempts failed'
);
like(
	runs_of($node, 'hopeless'),
	qr/failed 1, failed 2, .*failed 1/,
	'a run had several attempts');
app(q{remove_task('hopeless')});

$holder->query('SELECT pg_advisory_lock(1)');
app(q{add_task('hold', clock_timestamp(), '{"what": "unwanted"}', every => '50 ms', task_id => 'unwanted')}
);
foreach my $n (1 .. 3)
{
	await(
		$node,
		qq{SELECT run_count = $n - 1 AND state = 'running' FROM taskshed.tasks WHERE task_id = 'unwanted'},
		"run $n has begun");
	await_blocked($node, 1);
	is(app(q{cancel_task('unwanted')}), 't', "run $n is cancelled");
}
await(
	$node,
	q{SELECT run_count = 3 AND state = 'running' FROM taskshed.tasks WHERE task_id = 'unwanted'},
	'the next has begun');
is( query(
		q{SELECT failures_in_row, last_status FROM taskshed.tasks WHERE task_id = 'unwanted'}
	),
	'0|cancelled',
	'runs that were cancelled do not count as failures');
app(q{remove_task('unwanted')});
$holder->quit;

#
# The log line and the count, however a run has failed
#
sub is_logged
{
	my ($add, $task_id, $line, $how) = @_;
	my $log    = -s $node->logfile;
	my $failed = query('SELECT runs_failed FROM taskshed.status');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	app($add);
	await_state($node, $task_id, 'failed');
	await(
		$node,
		"SELECT runs_failed > $failed FROM taskshed.status",
		"$how: counted");
	is( query('SELECT runs_failed FROM taskshed.status'),
		$failed + 1,
		"$how: counted once");
	my @lines = slurp_file($node->logfile, $log) =~
	  /WARNING:  (task ".* of role ".*" failed in .*)$/mg;
	is(scalar(@lines), 1, "$how: one line in the log");
	like($lines[0] || '', $line, "$how: which says what has failed");
	return;
}

is_logged(
	q{add_task('ignore', task_id => 'deaf', timeout => '50 ms')},
	'deaf',
	qr/^task "deaf" of role "app" in database "postgres" failed in public\.ignore: 57014: \S/,
	'a worker terminated at the end of its time');
is(runs_of($node, 'deaf'), 'timeout 1', 'it has timed out');
is_logged(
	q{add_task('terminate_me', task_id => 'terminate')},
	'terminate',
	qr/^task "terminate" of role "app" in database "postgres" failed in public\.terminate_me: 57P01: 2 runs in a row were interrupted/,
	'too many interruptions');
is( runs_of($node, 'terminate'),
	'interrupted 1, interrupted 1',
	'they are all that has been');
is_logged(
	q{add_task('fail', task_id => E'two\nlines')},
	"two\nlines",
	qr/^task "two lines" of role "app" in database "postgres" failed in public\.fail: P0001: on purpose$/,
	'a task_id of two lines');
is_logged(
	q{add_task('terminate_me', task_id => E'lost\nlines')},
	"lost\nlines",
	qr/^task "lost lines" of role "app" in database "postgres" failed in public\.terminate_me: 57P01: \S/,
	'a task_id of two lines, interrupted');

$node->stop;
done_testing();
