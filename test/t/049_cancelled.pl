
# cancel_task is transactional, as all other calls are: it acts at the commit, not
# after a rollback, not after that of the subtransaction that has called it, and
# never on another run than the one that was in progress at the call.  And it
# needs nothing that a run can be waiting for: a run whose commit waits for a
# standby that does not come is ended, too.
#
# Quick: promise 1

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'cancelled', conf => q{
max_prepared_transactions = 5
wal_level = replica
max_wal_senders = 2
});

query(
	q{
CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.ledger (what) VALUES ('begun');
	COMMIT;
	INSERT INTO public.ledger (what) VALUES ('gone on');
	PERFORM pg_advisory_lock(1);
END $$;

-- Cancels a task, and goes on.
CREATE FUNCTION cancels(task_id text, fails boolean DEFAULT false) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer boolean := taskshed.cancel_task(task_id);
BEGIN
	PERFORM pg_sleep(0.01);
	INSERT INTO public.ledger (what) VALUES ('cancels ' || task_id);
	IF fails THEN
		RAISE EXCEPTION 'on purpose';
	END IF;
	RETURN answer;
END $$;
CREATE PROCEDURE cancels_itself() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.ledger (what) VALUES ('before');
	PERFORM taskshed.cancel_task('itself');
	PERFORM pg_sleep(0.01);
	INSERT INTO public.ledger (what) VALUES ('still before');
	COMMIT;
	INSERT INTO public.ledger (what) VALUES ('after');
	PERFORM pg_sleep(600);
END $$;
});

# A run that lasts until the lock is given back
my $holder = session($node);
my $client = session($node);

sub start
{
	my ($task_id, $more) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$holder->query('SELECT pg_advisory_lock(1)');
	query(
		qq{SELECT taskshed.add_task('hold', kwargs => '{"what": "$task_id"}', task_id => '$task_id'}
		  . (defined $more ? ", $more" : '')
		  . ')');
	return await_blocked($node, 1);
}

sub let_go { return $holder->query('SELECT pg_advisory_unlock(1)') }

# A run that was started goes on: it was neither cancelled nor is it about to
# be, since it succeeds when it is let go.
sub goes_on
{
	my ($task_id, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	let_go();
	await_no_task($node, $task_id);
	return is(runs_of($node, $task_id), 'succeeded 1', $what);
}

sub is_cancelled
{
	my ($task_id, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	await_state($node, $task_id, 'failed');
	let_go();
	return is(runs_of($node, $task_id), 'cancelled 1', $what);
}

my $yes = q{SELECT taskshed.cancel_task('%s')};

# Rolled back, by whatever
start('rollback');
is($client->query('BEGIN; ' . sprintf($yes, 'rollback') . '; ROLLBACK'),
	't', 'there is a run in progress');
is($client->query(q{BEGIN; SELECT taskshed.cancel_tasks('{rollback}')}),
	'1', 'and so say cancel_tasks');
like($client->query('SELECT 1 / 0; COMMIT'),
	qr/division by zero/, 'an error');
$client->query('BEGIN; ' . sprintf($yes, 'rollback'));
$client->quit;
$client = session($node);
goes_on('rollback',
	'what is rolled back, fails or loses its client does not cancel');

# Not before the commit
start('commit');
$client->query('BEGIN');
is($client->query(sprintf $yes, 'commit'), 't', 'called');
is( query(
		q{SELECT state, (SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory') FROM taskshed.tasks WHERE task_id = 'commit'}
	),
	'running|1',
	'the run goes on until the commit');
$client->query('COMMIT');
is_cancelled('commit', 'it is cancelled then');

# Subtransactions
my $nested = q{
BEGIN;
SAVEPOINT a;
%s
SAVEPOINT b;
SELECT taskshed.cancel_task('nested');
RELEASE SAVEPOINT b;
SELECT taskshed.cancel_task('nested');
%s
COMMIT};
foreach my $case (
	[ 'rolled back', '', 'ROLLBACK TO SAVEPOINT a;', 0 ],
	[ 'released',    '', 'RELEASE SAVEPOINT a;',     1 ],
	[ 'left open',   '', '',                         1 ],
	[
		'the outer one asked, too',
		'ROLLBACK TO SAVEPOINT a; RELEASE SAVEPOINT a; '
		  . sprintf($yes, 'nested')
		  . '; SAVEPOINT a;',
		'ROLLBACK TO SAVEPOINT a;',
		1
	])
{
	my ($what, $before, $after, $cancelled) = @$case;

	start('nested');
	$client->query(sprintf $nested, $before, $after);
	if ($cancelled)
	{
		is_cancelled('nested', "a subtransaction $what: cancelled");
	}
	else { goes_on('nested', "a subtransaction $what: not cancelled") }
	query(
		q{SELECT taskshed.remove_task('nested'); DELETE FROM _taskshed.run_0; DELETE FROM _taskshed.run_1}
	);
}
start('block');
query(
	q{DO $$
BEGIN
	BEGIN
		PERFORM taskshed.cancel_task('block');
		RAISE EXCEPTION 'on purpose';
	EXCEPTION WHEN raise_exception THEN
		NULL;
	END;
	COMMIT;
	PERFORM taskshed.cancel_task('block');
	ROLLBACK;
END $$});
goes_on('block', 'an exception block and a ROLLBACK in a DO take it back');
start('do');
query(q{DO $$ BEGIN PERFORM taskshed.cancel_task('do'); COMMIT; END $$});
is_cancelled('do', 'a COMMIT in a DO does it');

# A later run than the one that was meant
start('later', q{every => '1 ms', run_at => now()});
$client->query('BEGIN');
is($client->query(sprintf $yes, 'later'), 't', 'one run is meant');
let_go();
await($node,
	q{SELECT run_count > 0 FROM taskshed.tasks WHERE task_id = 'later'},
	'it is over');
$holder->query('SELECT pg_advisory_lock(1)');
await_blocked($node, 1);
$client->query('COMMIT');
my $count =
  query(q{SELECT run_count FROM taskshed.tasks WHERE task_id = 'later'});
let_go();
await(
	$node,
	qq{SELECT run_count > $count + 10 FROM taskshed.tasks WHERE task_id = 'later'},
	'others follow');
query(q{SELECT taskshed.remove_task('later')});
is( query(
		q{SELECT DISTINCT status FROM taskshed.runs WHERE task_id = 'later'}),
	'succeeded',
	'none of them is cancelled by what meant an earlier one');

# Two-phase commit
start('prepared');
$client->query('BEGIN');
$client->query(sprintf $yes, 'prepared');
my $error =
  $client->query("\\set VERBOSITY verbose\nPREPARE TRANSACTION 'cancel'");
like(
	$error,
	qr/0A000: cannot PREPARE a transaction that has cancelled runs/,
	'it cannot be prepared');
like($error, qr/HINT:  Call taskshed.cancel_task/, 'with a way out');
$client->query(
	q{ROLLBACK; BEGIN; SAVEPOINT a; SELECT taskshed.cancel_task('prepared'); ROLLBACK TO SAVEPOINT a; SELECT taskshed.cancel_task('nobody'); PREPARE TRANSACTION 'none'; COMMIT PREPARED 'none'}
);
is(query(q{SELECT count(*) FROM pg_prepared_xacts}),
	'0', 'one that cancels nothing after all can');
goes_on('prepared', 'and the run goes on');

# From inside
start('other');
query(
	q{SELECT taskshed.add_task('cancels', kwargs => '{"task_id": "other", "fails": true}', task_id => 'fails')}
);
await_state($node, 'fails', 'failed');
goes_on('other', 'a callback that fails has cancelled nothing');
start('another');
query(
	q{SELECT taskshed.add_task('cancels', kwargs => '{"task_id": "another"}', task_id => 'ends it')}
);
is_cancelled('another', 'one that succeeds has');
query(
	q{SELECT taskshed.add_task('cancels', kwargs => '{"task_id": "me"}', task_id => 'me')}
);
await_no_task($node, 'me');
is( query(q{SELECT status, result FROM taskshed.runs WHERE task_id = 'me'}),
	'succeeded|true',
	'a function that cancels its own run: at its commit it is over');
query(q{SELECT taskshed.add_task('cancels_itself', task_id => 'itself')});
await_state($node, 'itself', 'failed');
is(query(q{SELECT status FROM taskshed.runs WHERE task_id = 'itself'}),
	'cancelled', 'a procedure ends at its commit');
is( query(
		q{SELECT string_agg(what, ', ') FROM ledger WHERE what IN ('before', 'still before', 'after')}
	),
	'before, still before',
	'with what it has done until then');

# Commits that wait for a standby that does not come: a function's, which ends its
# run; a procedure's, which is in the middle of it; and the one by which it is written
# down that the procedure has begun.  The session that cancels waits for nobody.
sub in_syncrep
{
	my ($condition, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node, qq{
		SELECT count(*) = 1 FROM pg_stat_activity JOIN taskshed.tasks ON worker_pid = pid
		WHERE wait_event = 'SyncRep' AND $condition}, $what);
}

query(
	q{ALTER DATABASE postgres SET synchronous_commit = local;
	TRUNCATE ledger});
$client->quit;
$client = session($node);
$client->query('SET synchronous_commit = on');
set_and_reload(
	$node,
	'taskshed.synchronous_commit' => 'on',
	'synchronous_standby_names'   => 'nobody');
$node->poll_query_until('postgres', q{SHOW synchronous_standby_names},
	'nobody');

my $log = -s $node->logfile;
query(
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "waits"}', task_id => 'waits')}
);
in_syncrep(q{task_id = 'waits'}, 'the end of a run waits');
is($client->query(sprintf $yes, 'waits'),
	't', 'a run that waits for a standby is told');
await_no_task($node, 'waits');
is(runs_of($node, 'waits'),
	'succeeded 1', 'what was committed is its record');
is(query(q{SELECT count(*) FROM ledger WHERE what = 'waits'}),
	'1', 'and its effect');
ok( $node->wait_for_log(
		qr/taskshed worker.*WARNING: .*canceling wait for synchronous replication/,
		$log),
	'the server says that the standby may not have it');

query(q{SELECT taskshed.add_task('commits', task_id => 'begins')});
in_syncrep(q{task_id = 'begins'}, 'the begin of a procedure waits');
is(query(q{SELECT count(*) FROM ledger WHERE what = 'begun'}),
	'0', 'it was not called yet');
is($client->query(sprintf $yes, 'begins'), 't', 'it is told');
in_syncrep(q{task_id = 'begins'}, 'now the end of its run waits');
is( $client->query(
		q{SELECT taskshed.cancel_tasks(array(SELECT task_id FROM taskshed.tasks WHERE task_id = 'begins'))}
	),
	'1',
	'cancel_tasks says so, too');
await_state($node, 'begins', 'failed');
is(runs_of($node, 'begins'), 'cancelled 1', 'it is cancelled');
is(query(q{SELECT count(*) FROM ledger WHERE what = 'begun'}),
	'0', 'before it has done anything');

# (A procedure's own commits have the worker's setting as well, which a run with a
# standby at hand lets it get to.)
$holder->query('SELECT pg_advisory_lock(1)');
set_and_reload($node, 'synchronous_standby_names' => undef);
query(
	q{
CREATE PROCEDURE commits_twice() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_lock_shared(1);
	INSERT INTO public.ledger (what) VALUES ('committed');
	COMMIT;
	INSERT INTO public.ledger (what) VALUES ('gone on');
	PERFORM pg_advisory_lock(2);
END $$;
SELECT taskshed.add_task('commits_twice', task_id => 'middle')});
await_blocked($node, 1);
set_and_reload($node, 'synchronous_standby_names' => 'nobody');
$node->poll_query_until('postgres', q{SHOW synchronous_standby_names},
	'nobody');
let_go();
in_syncrep(q{task_id = 'middle'}, 'a COMMIT of a procedure waits');
is($client->query(sprintf $yes, 'middle'), 't', 'it is told');
in_syncrep(
	q{task_id = 'middle' AND EXISTS (SELECT FROM ledger WHERE what = 'committed')},
	'the end of its run waits');
is($client->query(sprintf $yes, 'middle'), 't', 'told again');
await_state($node, 'middle', 'failed');
is(runs_of($node, 'middle'),
	'cancelled 1', 'the procedure has not gone on, and is cancelled');

# What a callback sets for its own run is what its commit waits for, and no other's.
set_and_reload($node, 'taskshed.synchronous_commit' => 'off');
query(
	q{CREATE FUNCTION asks() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('synchronous_commit', 'on', true);
	PERFORM public.note('asked');
END $$;
SELECT taskshed.add_task('asks', task_id => 'asks')});
in_syncrep(q{task_id = 'asks'},
	'the end of a run waits that has asked for it');
is($client->query(sprintf $yes, 'asks'), 't', 'it is told');
await_no_task($node, 'asks');
query(
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "does not ask"}', task_id => 'does not ask')}
);
await_no_task($node, 'does not ask');
is( query(
		q{SELECT string_agg(what, ', ') FROM ledger WHERE what IN ('committed', 'gone on')}
	),
	'committed',
	'what it has committed stays');
set_and_reload($node, 'synchronous_standby_names' => undef);

$holder->quit;
$client->quit;
$node->stop;
done_testing();
