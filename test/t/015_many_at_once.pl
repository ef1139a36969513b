
# What is scheduled or changed in one commit runs on time, however much it is
# and however much lies ahead: more than a transaction can tell the scheduler
# one by one, more than the scheduler keeps in memory.
#
# Quick: promise 6

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('many_at_once');

$node->safe_psql('postgres', 'CREATE ROLE other LOGIN');

# Schedules so many notes in one transaction.
sub add
{
	my ($what, $n, $run_at, $owner) = @_;

	query(
		qq{SELECT count(taskshed.add_task('note', $run_at, jsonb_build_object('what', '$what'),
			owner => '$owner', task_id => '$what ' || i)) FROM generate_series(1, $n) i}
	);
	return;
}

# The scheduler has caught up with what lies ahead when it knows when to wake.
sub await_asleep
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node,
		q{SELECT next_wakeup > now() + interval '1 hour' FROM taskshed.status},
		'the scheduler sleeps');
}

# A role with much ahead of it, and one with nothing
add('ahead', 3000, q{now() + interval '1 day'}, 'postgres');
await_asleep();
foreach my $owner ('postgres', 'other')
{
	add("many of $owner", 65, 'NULL', $owner);
	await_effects($node, "many of $owner", 65);
	foreach my $who ('postgres', 'other')
	{
		add("one of $who after $owner", 1, 'NULL', $who);
		await_effects($node, "one of $who after $owner", 1);
	}
}

# Changed in bulk: to now, to later, paused and resumed
add('moved', 500, q{now() + interval '2 days'}, 'other');
await_asleep();
query(
	q{SELECT taskshed.update_execution_times(array_agg((task_id, now())::taskshed.task_execution_time), 'other')
	FROM taskshed.tasks WHERE task_id LIKE 'moved %'});
await_effects($node, 'moved', 500);

query(
	q{SELECT count(taskshed.add_task('note', now() - interval '1 min', '{"what": "resumed"}',
		task_id => 'resumed ' || i, group_id => 'resumed', paused => true)) FROM generate_series(1, 500) i}
);
query(q{SELECT taskshed.resume_tasks(group_id => 'resumed')});
await_effects($node, 'resumed', 500);

# What is far behind waits its turn, and is not forgotten when the scheduler
# has had to forget what it had read.
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
query(
	q{SELECT taskshed.add_task('note', now() - interval '10 min', '{"what": "behind"}', every => '1 min',
		catch_up => 'all', task_id => 'behind', until => now() + interval '30 s')});
query(
	q{SELECT count(taskshed.add_task('hold', run_at => now() - interval '5 min', kwargs => '{"what": "held"}'))
	FROM generate_series(1, 4)});
await_blocked($node, 4);
query(
	q{DO $$
	BEGIN
		FOR i IN 1 .. 8400 LOOP
			PERFORM taskshed.add_task('note', now() + interval '2 hours', '{"what": "later"}');
			COMMIT;
		END LOOP;
	END $$});
$holder->query('SELECT pg_advisory_unlock(1)');
await_effects($node, 'held', 4);
await_no_task($node, 'behind');
cmp_ok(query(q{SELECT count(*) FROM ledger WHERE what = 'behind'}),
	'>=', 11, 'all times that were missed have been made up for');

is( query(
		q{SELECT count(*) FROM taskshed.tasks WHERE run_at < now() + interval '1 hour'}
	),
	'0',
	'nothing that is due is left');
is( query(
		q{SELECT what, count(*) FROM ledger GROUP BY 1
		HAVING count(*) <> CASE WHEN what ~ '^many' THEN 65 WHEN what ~ '^(moved|resumed)' THEN 500 WHEN what = 'held' THEN 4 ELSE 1 END
			AND what <> 'behind'}),
	'',
	'each has run once');
$holder->quit;
$node->stop;
done_testing();
