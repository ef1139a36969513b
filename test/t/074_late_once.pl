
# Whether a run is too late is asked once, when it first starts.  What has begun
# is begun again, whatever has cut it off and whatever the time is then; a record
# "missed" never stands in for another end.  And lateness counts from when a run
# could have started: not from before the commit that scheduled it, and not from a
# time that a later call has replaced.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'late_once', conf => q{
taskshed.max_workers = 12
max_worker_processes = 24
max_prepared_transactions = 2
deadlock_timeout = 100ms
});

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE TABLE account (id integer PRIMARY KEY, n integer);
INSERT INTO account VALUES (1, 0), (2, 0);
CREATE FUNCTION transfer(a integer, b integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE account SET n = n - 1 WHERE id = a;
	PERFORM public.hold('transfer', 2);
	UPDATE account SET n = n + 1 WHERE id = b;
END $$;
CREATE PROCEDURE in_steps(lock integer) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note('attempt ' || (taskshed.current_task()).attempt);
	COMMIT;
	PERFORM public.hold('done', lock);
END $$;
GRANT ALL ON account TO app;
});

sub try_as_app
{
	my ($call) = @_;
	return psql_as($node, 'app', "SELECT taskshed.$call");
}

# Waits until so many seconds have passed since the runs that wait for a lock
# began: each of them would be missed if it were asked again.
sub await_late
{
	my ($seconds, $pattern) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node, qq{
		SELECT bool_and(clock_timestamp() > running_since + interval '$seconds s')
		FROM taskshed.tasks WHERE task_id LIKE '$pattern' AND state = 'running'},
		"$pattern would be late");
}

my $holder = session($node);

#
# A lost deadlock
#
$holder->query('SELECT pg_advisory_lock(2)');
try_as_app(
	qq{add_task('transfer', clock_timestamp(), '{"a": $_->[1], "b": $_->[2]}', every => '1 day',
	catch_up => 'skip', task_id => '$_->[0]')}
) foreach ([ 'deadlock 12', 1, 2 ], [ 'deadlock 21', 2, 1 ]);
await_blocked($node, 2, 2);
await_late(1.1, 'deadlock %');
$holder->query('SELECT pg_advisory_unlock(2)');
await(
	$node,
	q{SELECT count(*) = 2 FROM taskshed.tasks WHERE task_id LIKE 'deadlock %' AND run_count = 1},
	'both are over');
is(runs_of($node, $_),
	'succeeded 1', "$_: who lost the deadlock was run again")
  foreach ('deadlock 12', 'deadlock 21');
like(
	$node->safe_psql(
		'postgres',
		q{SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'}),
	qr/^[1-9]/,
	'there was one');

#
# A lost worker, a refused command on the database, restarts
#
sub begin_held
{
	my ($round) = @_;

	$holder->query('SELECT pg_advisory_lock(3)');
	try_as_app(
		qq{add_task('hold', clock_timestamp(), '{"what": "skip $round", "lock": 3}', every => '1 day',
		catch_up => 'skip', task_id => '$round: skip')});
	try_as_app(
		qq{add_task('hold', clock_timestamp(), '{"what": "within $round", "lock": 3}',
		start_within => '1 s', task_id => '$round: within')});
	try_as_app(
		qq{add_task('hold', clock_timestamp(), '{"what": "until $round", "lock": 3}', every => '1 day',
		until => clock_timestamp() + '1 s', task_id => '$round: until')});
	try_as_app(
		qq{add_task('in_steps', clock_timestamp(), '{"lock": 3}', start_within => '1 s',
		task_id => '$round: procedure')});
	await_blocked($node, 4, 3);
	return await_late(1.2, "$round: %");
}

sub end_held
{
	my ($round) = @_;

	await_blocked($node, 4, 3);
	$holder->query('SELECT pg_advisory_unlock(3)');
	await_no_task($node, "$round: until");
	await_no_task($node, "$round: within");
	await_no_task($node, "$round: procedure");
	await(
		$node,
		qq{SELECT last_status = 'succeeded' FROM taskshed.tasks WHERE task_id = '$round: skip'},
		"$round: all are over");
	is( runs_of($node, "$round: $_"),
		'interrupted 1, succeeded 1',
		"$round: $_ is run again") foreach ('skip', 'within', 'until');
	is( $node->safe_psql(
			'postgres', qq{
			SELECT count(*) FROM ledger WHERE what ~ '^(skip|within|until) $round\$'}),
		'3',
		"$round: with all effects, once");
	return;
}

begin_held('worker');
$node->safe_psql('postgres',
	q{SELECT pg_terminate_backend(worker_pid) FROM taskshed.tasks WHERE state = 'running'}
);
end_held('worker');

begin_held('command');
isnt($node->psql('template1', 'ALTER DATABASE postgres RENAME TO other'),
	0, 'the database cannot be renamed: somebody is in it');
end_held('command');

foreach my $mode ('fast', 'immediate')
{
	begin_held($mode);

	# tasks wait until the lock is there again
	$node->safe_psql('postgres', 'ALTER SYSTEM SET taskshed.enabled = off');
	$node->stop($mode);
	$holder->quit;
	$node->start;
	$holder = session($node);
	$holder->query('SELECT pg_advisory_lock(3)');
	set_and_reload($node, 'taskshed.enabled' => undef);
	end_held($mode);
}

#
# A later call begins a new time
#
$holder->query('SELECT pg_advisory_lock(4)');
my @calls = (
	[
		'asked again',
		q{add_task('hold', kwargs => '{"what": "asked again", "lock": 4}', task_id => 'asked again',
		start_within => '6 s', replace_existing => false)}
	],
	[
		'replaced',
		q{add_task('hold', kwargs => '{"what": "replaced", "lock": 4}', task_id => 'replaced',
		every => '2 days', start_within => '6 s')}
	],
	[
		'moved',
		q{update_execution_time('moved', clock_timestamp() - interval '1 hour')}
	]);
try_as_app(
	qq{add_task('hold', kwargs => '{"what": "$_->[0]", "lock": 4}', task_id => '$_->[0]',
	start_within => '6 s', every => }
	  . ($_->[0] eq 'asked again' ? 'NULL' : q{'1 day'}) . ')'
) foreach @calls;
await_blocked($node, 3, 4);
await_late(6.1, $_->[0]) foreach @calls;
try_as_app($_->[1]) foreach @calls;
$holder->query('SELECT pg_advisory_unlock(4)');
await(
	$node,
	qq{SELECT count(*) = 2 FROM taskshed.runs WHERE task_id = '$_->[0]'},
	"$_->[0] is over") foreach @calls;
is( runs_of($node, $_->[0]),
	'succeeded 1, succeeded 1',
	"$_->[0] while it ran: a run of its own") foreach @calls;

# What has failed is not late for the time that it has failed at.
try_as_app(
	q{add_task('transfer', clock_timestamp(), '{"a": null}', every => '1 day', max_runs => 1, start_within => '1 s',
	validate => false, task_id => 'retried')});
await_state($node, 'retried', 'failed');
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION transfer(a integer) RETURNS void LANGUAGE sql AS $$SELECT public.note('retried')$$}
);
await(
	$node,
	q{SELECT clock_timestamp() > last_run_at + interval '1.1 s' FROM taskshed.tasks WHERE task_id = 'retried'},
	'the time is over');
try_as_app(q{retry_task('retried')});
await_no_task($node, 'retried');
is( runs_of($node, 'retried'),
	'failed 1, succeeded 1',
	'what is sent round again is not late');

# What has begun and was cut off is begun again though it is replaced before, and a
# procedure is told that it has begun.  A wait for an attempt may be replaced, too.
foreach my $changed (
	q{add_task('in_steps', kwargs => '{"lock": 5}', every => '1 day', catch_up => 'skip', timeout => '1 hour', task_id => 'cut off')},
	q{update_tasks('{"timeout": "2 hours"}', ARRAY['cut off'])})
{
	$holder->query('SELECT pg_advisory_lock(5)');
	try_as_app(
		q{add_task('in_steps', kwargs => '{"lock": 5}', every => '1 day', catch_up => 'skip', task_id => 'cut off')}
	);
	await_blocked($node, 1, 5);
	await_late(1.1, 'cut off');
	$node->safe_psql('postgres', 'ALTER SYSTEM SET taskshed.enabled = off');
	$node->stop;
	$holder->quit;
	$node->start;
	await($node, q{SELECT state = 'disabled' FROM taskshed.status},
		'nothing runs');
	try_as_app($changed);
	$holder = session($node);
	$node->safe_psql('postgres',
		q{DELETE FROM ledger WHERE what LIKE 'attempt%'});
	set_and_reload($node, 'taskshed.enabled' => undef);
	await(
		$node,
		q{SELECT run_count = 1 FROM taskshed.tasks WHERE task_id = 'cut off'},
		'it has run');
	is( runs_of($node, 'cut off'),
		'interrupted 1, succeeded 1',
		"begun again after $changed");
	is( $node->safe_psql(
			'postgres', q{SELECT what FROM ledger WHERE what LIKE 'attempt%'}
		),
		'attempt 2',
		'which is the second time');
	try_as_app(q{remove_task('cut off')});
	$node->safe_psql('postgres', 'TRUNCATE _taskshed.run_0');
}
try_as_app(
	q{add_task('hold', clock_timestamp(), '{"what": null, "lock": 0}', validate => false, max_attempts => 3, retry_delay => '1 hour',
	start_within => '1 s', task_id => 'tried')});
await(
	$node,
	q{SELECT attempt = 1 FROM taskshed.tasks WHERE task_id = 'tried'},
	'one attempt has failed');
await(
	$node,
	q{SELECT clock_timestamp() > last_run_at + interval '1.1 s' FROM taskshed.tasks WHERE task_id = 'tried'},
	'its time is over');
try_as_app(
	q{update_tasks('{"every": "1 day", "kwargs": {"what": "tried", "lock": 6}}', ARRAY['tried'])}
);
await(
	$node,
	q{SELECT last_status = 'succeeded' FROM taskshed.tasks WHERE task_id = 'tried'},
	'it is made to recur, at once');
is( runs_of($node, 'tried'),
	'failed 1, succeeded 1',
	'a time that was tried is not late when it is given anew');

# What is asked for by hand while a task has its last run is not late.
$holder->query('SELECT pg_advisory_lock(5)');
try_as_app(
	q{add_task('hold', kwargs => '{"what": "last", "lock": 5}', start_within => '1 s', task_id => 'last')}
);
await_blocked($node, 1, 5);
try_as_app(q{run_task('last')});
await_late(1.2, 'last');
$holder->query('SELECT pg_advisory_unlock(5)');
await_no_task($node, 'last');
is( runs_of($node, 'last'),
	'succeeded 1, succeeded 1',
	'a run by hand behind the last one');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(by_hand::text, ', ' ORDER BY finished_at, run_id) FROM taskshed.runs WHERE task_id = 'last'}
	),
	'false, true',
	'which the history says');

#
# Time before the commit does not count
#
sub schedule_slowly
{
	my ($round, @ends) = @_;
	my %late = (
		once          => q{start_within => '1 s'},
		skips         => q{every => '1 day', catch_up => 'skip'},
		'other times' => q{every => '2 days', start_within => '1 s'},
		twice         => q{start_within => '1 s'});

	try_as_app(
		qq{add_task('note', '2100-01-01', '{"what": "x"}', every => '1 day', task_id => '$round: other times')}
	);
	foreach my $name ('failed', 'failed for good')
	{
		try_as_app(
			qq{add_task('hold', kwargs => '{"what": null, "lock": 0}', validate => false, start_within => '1 s',
			task_id => '$round: $name'}
			  . (
				$name eq 'failed'
				? q{, max_attempts => 3, retry_delay => '1 hour')}
				: ')'));
		await(
			$node,
			qq{SELECT last_status = 'failed' FROM taskshed.tasks WHERE task_id = '$round: $name' AND state <> 'running'},
			"$name has failed");
	}
	$holder->query('BEGIN');
	$holder->query(
		qq{SELECT taskshed.add_task('note', kwargs => '{"what": "slow"}', owner => 'app', task_id => '$round: $_', start_within => '1 s')}
	) foreach 'failed', 'failed for good';
	foreach my $name ('twice', sort keys %late)
	{
		$holder->query(
			qq{SELECT taskshed.add_task('note', kwargs => '{"what": "slow"}', owner => 'app', task_id => '$round: $name', $late{$name})}
		);
	}
	$holder->query(
		qq{SAVEPOINT s;
		SELECT taskshed.add_task('note', kwargs => '{"what": "x"}', owner => 'app', task_id => '$round: rolled back', start_within => '1 s');
		ROLLBACK TO s});
	$holder->query(
		qq{SELECT taskshed.add_task('note', clock_timestamp(), '{"what": "x"}', owner => 'app', task_id => '$round: said when', start_within => '1 s')}
	);
	await(
		$node, qq{
		SELECT clock_timestamp() > xact_start + interval '1.2 s' FROM pg_stat_activity
		WHERE state = 'idle in transaction'},
		'the transaction has taken long');
	is($holder->query($_), '', "$round: $_") foreach @ends;
	foreach my $name (sort keys %late)
	{
		await(
			$node,
			qq{SELECT EXISTS (SELECT FROM taskshed.runs WHERE task_id = '$round: $name')},
			"$round: $name is over");
		is(runs_of($node, "$round: $name"),
			'succeeded 1', "$round: $name is not late for its transaction");
	}
	foreach my $name ('failed', 'failed for good')
	{
		await_no_task($node, "$round: $name");
		is( runs_of($node, "$round: $name"),
			'failed 1, succeeded 1',
			"$round: $name, replaced, is not late");
	}
	await_state($node, "$round: said when", 'failed');
	is(runs_of($node, "$round: said when"),
		'missed 1', "$round: but what was given a time is");
	return;
}
schedule_slowly('commit', 'COMMIT');
schedule_slowly(
	'prepare',
	q{PREPARE TRANSACTION 'slow'},
	q{COMMIT PREPARED 'slow'});

# What has gone with a savepoint is somebody else's, and not waited for.
try_as_app(
	q{add_task('note', '2100-01-01', '{"what": "x"}', every => '1 day', task_id => 'of others')}
);
my $other = session($node);
$holder->query(
	q{SET lock_timeout = '5 s'; BEGIN; SAVEPOINT s;
	SELECT taskshed.add_task('note', kwargs => '{"what": "x"}', every => '2 days', task_id => 'of others', owner => 'app',
		start_within => '10 ms');
	ROLLBACK TO s});
$other->query(
	q{BEGIN; SELECT taskshed.pause_task('of others', owner => 'app')});
is($holder->query('COMMIT'), '', 'a commit waits for nobody');
$other->query('COMMIT');
$other->quit;

is( $node->safe_psql(
		'postgres', q{
		SELECT string_agg(task_id, ', ' ORDER BY task_id) FROM taskshed.runs WHERE status = 'missed'}
	),
	'commit: said when, prepare: said when',
	'nothing else was missed');

$holder->quit;
$node->stop;
done_testing();
