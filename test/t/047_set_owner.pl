
# Tasks that are given to another role, or taken along by DROP OWNED and
# REASSIGN OWNED, while they are due or run.  What is in progress goes on as the
# old owner and its outcome counts; what comes after it runs as the new one.
#
# Quick: promise 8

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node   = taskshed_node('set_owner', conf => "taskshed.max_workers = 1\n");
my $holder = session($node);

$node->safe_psql(
	'postgres', q{
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
CREATE PROCEDURE commits(what text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note(what);
	COMMIT;
	PERFORM public.hold(what);
END $$});

# Who has left those lines in the ledger.
sub who
{
	my ($what) = @_;

	return $node->safe_psql('postgres',
		"SELECT string_agg(who, ' ' ORDER BY started) FROM ledger WHERE what = '$what'"
	);
}

# A recurring task that runs, with others of its owner queued behind it.
$holder->query('SELECT pg_advisory_lock(1)');
$node->safe_psql(
	'postgres', q{
SELECT taskshed.add_task('hold', kwargs => '{"what": "recurring"}', every => '1 hour',
	task_id => 'recurring', owner => 'alice')});
await_blocked($node, 1);
$node->safe_psql(
	'postgres', q{
SELECT taskshed.add_task('note', kwargs => '{"what": "one"}', task_id => 'one', owner => 'alice');
SELECT count(taskshed.add_task('note', kwargs => '{"what": "many"}', owner => 'alice', group_id => 'many'))
	FROM generate_series(1, 200)});
await($node, q{SELECT count(*) = 201 FROM taskshed.tasks WHERE state = 'due'},
	'all wait');
is( $node->safe_psql(
		'postgres', q{
		SELECT taskshed.set_owner('bob', '{recurring}', owner => 'alice');
		SELECT taskshed.set_owner('bob', '{one}', owner => 'alice');
		SELECT taskshed.set_owner('bob', group_id => 'many', owner => 'alice')}),
	"1\n1\n200",
	'one that runs, one that waits and many are given away');
is( $node->safe_psql(
		'postgres',
		q{SELECT owner, state FROM taskshed.tasks WHERE task_id = 'recurring'}
	),
	'bob|running',
	'the one that runs, too');
$holder->query('SELECT pg_advisory_unlock(1)');
await(
	$node,
	q{SELECT count(*) = 1 FROM taskshed.tasks},
	'what has waited is done');
is(who('recurring'), 'alice/alice', 'the run went on as the old owner');
is( $node->safe_psql(
		'postgres',
		q{SELECT owner, state, run_count, last_status FROM taskshed.tasks}),
	'bob|scheduled|1|succeeded',
	'and its outcome counts');
is(who('one'), 'bob/bob', 'the one that waited ran as the new owner');
is( $node->safe_psql(
		'postgres',
		q{SELECT who, count(*) FROM ledger WHERE what = 'many' GROUP BY who}),
	'bob/bob|200',
	'and so did the many, once each');
$node->safe_psql('postgres',
	q{SELECT taskshed.update_execution_time('recurring', now(), 'bob')});
await(
	$node,
	q{SELECT run_count = 2 FROM taskshed.tasks},
	'the recurring one runs again');
is(who('recurring'), 'alice/alice bob/bob', 'as its new owner');
$node->safe_psql('postgres', q{SELECT taskshed.remove_all_tasks('bob')});

# So many at once that the scheduler is not told one by one, and one of them
# runs: what its old owner may is of no concern for what comes next.
$holder->query('SELECT pg_advisory_lock(1)');
$node->safe_psql(
	'postgres', q{
SELECT count(taskshed.add_task('note', '2100-01-01', '{"what": "many"}', owner => 'alice', task_id => 'a ' || i))
	FROM generate_series(1, 100) i;
SELECT taskshed.add_task('hold', kwargs => '{"what": "with many"}', every => '1 second',
	task_id => 'with many', owner => 'alice')});
await_blocked($node, 1);
$node->safe_psql('postgres',
	q{SELECT taskshed.set_owner('bob', owner => 'alice')});
$holder->query('SELECT pg_advisory_unlock(1)');
await(
	$node,
	q{SELECT run_count = 1 FROM taskshed.tasks WHERE task_id = 'with many'},
	'one of many has run');
$node->safe_psql('postgres',
	'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; GRANT CONNECT ON DATABASE postgres TO bob'
);
await(
	$node,
	q{SELECT run_count > 1 FROM taskshed.tasks WHERE task_id = 'with many'},
	'it goes on as its new owner');
$node->safe_psql('postgres',
	q{GRANT CONNECT ON DATABASE postgres TO PUBLIC; SELECT taskshed.remove_all_tasks('bob')}
);

# A run that is cut off is recorded as the old owner's, as whom it ran.
$holder->query('SELECT pg_advisory_lock(1)');
$node->safe_psql(
	'postgres', q{
SELECT taskshed.add_task('hold', kwargs => '{"what": "cut off"}', task_id => 'cut off', owner => 'alice')}
);
await_blocked($node, 1);
$node->safe_psql(
	'postgres', q{
SELECT taskshed.set_owner('bob', owner => 'alice');
SELECT pg_terminate_backend(worker_pid) FROM taskshed.tasks WHERE task_id = 'cut off'}
);
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'cut off');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(owner || ' ' || status, ', ' ORDER BY finished_at, run_id) FROM taskshed.runs WHERE task_id = 'cut off'}
	),
	'alice interrupted, bob succeeded',
	'a run that was cut off is the old owner\'s, the next is the new one\'s');

# A one-off task and a procedure that has committed
foreach my $callback ('hold', 'commits')
{
	$holder->query('SELECT pg_advisory_lock(1)');
	$node->safe_psql(
		'postgres', qq{
SELECT taskshed.add_task('$callback', kwargs => '{"what": "once $callback"}', task_id => 'once', owner => 'alice')}
	);
	await_blocked($node, 1);
	$node->safe_psql('postgres', 'REASSIGN OWNED BY alice TO bob');
	is( $node->safe_psql(
			'postgres', q{SELECT owner, state FROM taskshed.tasks}),
		'bob|running',
		"REASSIGN OWNED has given it away while it runs $callback");
	$holder->query('SELECT pg_advisory_unlock(1)');
	await_no_task($node, 'once');
	is( who("once $callback"),
		join(' ', ('alice/alice') x ($callback eq 'hold' ? 1 : 2)),
		'it has run once, and is done');
}

# DROP OWNED: what runs ends, and nothing comes after it.
$holder->query('SELECT pg_advisory_lock(1)');
$node->safe_psql(
	'postgres', q{
SELECT taskshed.add_task('hold', kwargs => '{"what": "dropped"}', every => '1 second', owner => 'alice');
SELECT taskshed.add_task('note', kwargs => '{"what": "dropped"}', owner => 'alice') FROM generate_series(1, 100);
SELECT taskshed.add_task('note', '2100-01-01', '{"what": "dropped"}', owner => 'bob')}
);
await_blocked($node, 1);
$node->safe_psql('postgres', 'DROP OWNED BY alice');
is($node->safe_psql('postgres', 'SELECT owner, state FROM taskshed.tasks'),
	'bob|scheduled', 'DROP OWNED has removed the tasks of that role only');
$holder->query('SELECT pg_advisory_unlock(1)');
await($node, q{SELECT running = 0 AND due = 0 FROM taskshed.status},
	'nothing runs');
is( $node->safe_psql(
		'postgres', q{SELECT count(*) FROM ledger WHERE what = 'dropped'}),
	'1',
	'the run has ended as it would have, and none came after it');

# Elsewhere, and where there is no extension, the commands are what they were.
$node->safe_psql('postgres', 'CREATE DATABASE bare');
$node->safe_psql('bare',
	'CREATE TABLE t (); ALTER TABLE t OWNER TO bob; REASSIGN OWNED BY bob TO alice; DROP OWNED BY alice'
);
is($node->safe_psql('bare', "SELECT to_regclass('t') IS NULL"),
	't', 'without the extension');
is($node->safe_psql('postgres', 'SELECT owner FROM taskshed.tasks'),
	'bob', 'tasks of another database stay');

# The extension itself is among what is dropped.
$node->safe_psql('bare',
	'CREATE ROLE root SUPERUSER; SET ROLE root; CREATE EXTENSION taskshed; RESET ROLE'
);
$node->safe_psql(
	'bare', q{
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
GRANT USAGE ON SCHEMA taskshed TO bob;
SELECT taskshed.add_task('nothing', '2100-01-01', owner => 'bob');
DROP OWNED BY root CASCADE});
is($node->safe_psql('bare', "SELECT to_regnamespace('taskshed') IS NULL"),
	't', 'DROP OWNED can drop the extension, too');

$holder->quit;
$node->stop;
done_testing();
