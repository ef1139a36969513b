
# Workers, schedulers and the launcher may be terminated at any moment, and the
# server may crash: they come back by themselves, no task is lost and none has
# its effect twice.
#
# Quick: promises 2 and 3; crash

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

# (wal_writer_delay: a crash takes back what was not written yet, the longer
# the more.)
my $node = taskshed_node(
	'terminated', conf => q{
restart_after_crash = on
wal_writer_delay = '2s'
});

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE ROLE other LOGIN;
CREATE FUNCTION slow_note(what text) RETURNS void LANGUAGE sql AS $$
	SELECT note(what);
	SELECT pg_sleep(0.003);
$$;
});

# Adds tasks of two roles over the next so many seconds, all of one name.
sub flow
{
	my ($what, $n, $seconds) = @_;

	$node->safe_psql(
		'postgres', qq{
		SELECT count(taskshed.add_task('slow_note',
			run_at => clock_timestamp() + i * interval '$seconds s' / $n,
			kwargs => jsonb_build_object('what', '$what ' || i),
			task_id => '$what ' || i,
			owner => CASE WHEN i % 3 = 0 THEN 'other' ELSE 'app' END))
		FROM generate_series(1, $n) AS i});
	return;
}

# Once all are done: has each had its effect once?
sub exactly_once
{
	my ($what, $n, $how) = @_;

	await_no_task($node, "$what%");
	is( $node->safe_psql(
			'postgres',
			"SELECT count(*), count(DISTINCT what) FROM ledger WHERE what LIKE '$what %'"
		),
		"$n|$n",
		"$how: nothing lost, nothing doubled");
	is( $node->safe_psql(
			'postgres',
			q{SELECT count(*) FROM ledger WHERE who NOT IN ('app/app', 'other/other')}
		),
		'0',
		"$how: each as its owner");
	return;
}

# The process id of one of that type, once there is one.
sub pid_of
{
	my ($type) = @_;

	await(
		$node,
		"SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'taskshed $type'",
		"there is a $type");
	return $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'taskshed $type' ORDER BY random() LIMIT 1"
	);
}

# Terminates a process of that type and waits until another is there.
sub terminate
{
	my ($type) = @_;
	my $pid = pid_of($type);

	return if $pid eq '';
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	await(
		$node, qq{
		SELECT count(*) FILTER (WHERE pid <> $pid) > 0 AND count(*) FILTER (WHERE pid = $pid) = 0
		FROM pg_stat_activity WHERE backend_type = 'taskshed $type'},
		"a $type has come for the one that was terminated");
	return;
}

# One after the other, several times, while tasks flow.
flow('one', 3000, 6);
my %terminated = (worker => 0, scheduler => 0, launcher => 0);
while (
	$node->safe_psql('postgres',
		q{SELECT count(*) FROM taskshed.tasks WHERE task_id LIKE 'one%'}) >
	500
	&& $terminated{launcher} < 20)
{
	foreach my $type (qw(worker scheduler worker launcher))
	{
		terminate($type);
		$terminated{$type}++;
	}
}
diag(
	join(', ', map { "$terminated{$_} ${_}s" } sort keys %terminated)
	  . ' terminated while 3000 tasks flowed');
exactly_once('one', 3000, 'processes terminated');
cmp_ok($terminated{launcher}, '>', 0, 'all kinds of process were terminated');

# All of them at once.
flow('all', 1000, 3);
await(
	$node,
	q{SELECT count(*) > 100 FROM ledger WHERE what LIKE 'all %'},
	'some have run');
$node->safe_psql('postgres',
	q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'taskshed%'}
);
exactly_once('all', 1000, 'all processes terminated at once');
await(
	$node, q{
	SELECT array_agg(backend_type ORDER BY backend_type) = array['taskshed launcher', 'taskshed scheduler']
	FROM pg_stat_activity WHERE backend_type IN ('taskshed launcher', 'taskshed scheduler')},
	'there is one of each again');

# The scheduler when it is idle.
my $scheduler = pid_of('scheduler');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($scheduler)");
await(
	$node,
	qq{SELECT scheduler_pid <> $scheduler AND state = 'active' FROM taskshed.status},
	'another scheduler is there');
flow('after', 10, 0.1);
exactly_once('after', 10, 'another scheduler');

# A run that is cut off in the middle is done again as a whole.
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION note_and_hold(what text) RETURNS void LANGUAGE sql AS $$
	SELECT note(what);
	SELECT hold('end of ' || what);
$$;
SET ROLE app;
SELECT taskshed.add_task('note_and_hold', kwargs => '{"what": "cut off"}', task_id => 'once');
SELECT taskshed.add_task('note_and_hold', kwargs => '{"what": "cut off"}', task_id => 'daily', every => '1 day')}
);
await_blocked($node, 2);
my $pids = $node->safe_psql('postgres',
	q{SELECT string_agg(worker_pid::text, ', ') FROM taskshed.tasks});
$node->safe_psql('postgres',
	"SELECT pg_terminate_backend(pid) FROM unnest(array[$pids]) AS pid");
await(
	$node,
	"SELECT count(*) FILTER (WHERE worker_pid NOT IN ($pids)) = 2 FROM taskshed.tasks",
	'both are running again');
await_blocked($node, 2);
is( $node->safe_psql(
		'postgres',
		q{SELECT task_id, state, run_count, last_status IS NULL FROM taskshed.tasks ORDER BY 1}
	),
	"daily|running|0|t\nonce|running|0|t",
	'a run cut off counts neither as failed nor as done');
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'once');
await(
	$node,
	q{SELECT run_count = 1 FROM taskshed.tasks WHERE task_id = 'daily'},
	'the recurring one has run');
is( $node->safe_psql(
		'postgres',
		q{SELECT what, count(*) FROM ledger WHERE what LIKE '%cut off' GROUP BY 1 ORDER BY 1}
	),
	"cut off|2\nend of cut off|2",
	'runs that were cut off had their effect once');

# Workers that go at once, while the scheduler asks for others in their places
foreach my $round (1 .. 20)
{
	$holder->query('SELECT pg_advisory_lock(1)');
	$node->safe_psql(
		'postgres', qq{
		SET ROLE app;
		SELECT taskshed.add_task('hold', kwargs => '{"what": "round $round"}', task_id => 'round ' || i)
		FROM generate_series(1, 4) i});
	await_blocked($node, 4);
	my $old = $node->safe_psql('postgres',
		q{SELECT array_agg(worker_pid) FROM taskshed.tasks WHERE state = 'running'}
	);
	$node->safe_psql('postgres',
		"SELECT pg_terminate_backend(pid) FROM unnest('$old'::integer[]) pid"
	);
	await(
		$node, qq{
		SELECT count(*) = 4 FROM taskshed.tasks
		WHERE state = 'running' AND task_id LIKE 'round %' AND worker_pid <> ALL ('$old')},
		"round $round: all four are running again");
	await_blocked($node, 4);
	$holder->query('SELECT pg_advisory_unlock(1)');
	await_no_task($node, 'round %');
}
is( $node->safe_psql(
		'postgres', q{
		SELECT what, count(*) FROM ledger WHERE what LIKE 'round %' GROUP BY 1 HAVING count(*) <> 4}
	),
	'',
	'each of them had its effect once');
is( $node->safe_psql(
		'postgres', q{
		SELECT count(*) FROM taskshed.runs WHERE task_id LIKE 'round %' AND status = 'interrupted'}
	),
	20 * 4,
	'and each is in the history as interrupted once');
$holder->quit;

# A worker is killed: the server starts itself anew.
flow('kill', 1500, 5);
await(
	$node,
	q{SELECT count(*) > 200 FROM ledger WHERE what LIKE 'kill %'},
	'some have run');
my $worker = pid_of('worker');
my $log    = -s $node->logfile;
kill 'KILL', $worker;
$node->wait_for_log(qr/all server processes terminated; reinitializing/,
	$log);
await($node, 'SELECT true', 'the server is up again');
exactly_once('kill', 1500, 'a worker killed');

# The scheduler is.
flow('skill', 600, 2);
await(
	$node,
	q{SELECT count(*) > 50 FROM ledger WHERE what LIKE 'skill %'},
	'some have run');
$scheduler = pid_of('scheduler');
$log       = -s $node->logfile;
kill 'KILL', $scheduler;
$node->wait_for_log(qr/all server processes terminated; reinitializing/,
	$log);
await($node, 'SELECT true', 'the server is up again');
exactly_once('skill', 600, 'the scheduler killed');

# The server is stopped at once, and later started.
flow('stop', 1500, 4);
await(
	$node,
	q{SELECT count(*) > 200 FROM ledger WHERE what LIKE 'stop %'},
	'some have run');
$node->stop('immediate');
$node->start;
exactly_once('stop', 1500, 'server stopped at once');

# It is stopped as usual.
flow('fast', 600, 2);
await(
	$node,
	q{SELECT count(*) > 50 FROM ledger WHERE what LIKE 'fast %'},
	'some have run');
$node->restart;
exactly_once('fast', 600, 'server restarted');

is( $node->safe_psql(
		'postgres', q{
		SELECT count(*) FROM taskshed.tasks WHERE task_id <> 'daily' OR state <> 'scheduled'}
	),
	'0',
	'no task has failed or is left');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no panic');
$node->stop;
done_testing();
