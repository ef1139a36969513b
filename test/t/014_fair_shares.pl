
# Roles share the workers: one whose tasks are due all the time, more than its
# share can run, keeps no other role waiting for ever.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('fair_shares', conf => 'taskshed.max_workers = 2');

my @roles = map { "role_$_" } 1 .. 6;
$node->safe_psql('postgres', "CREATE ROLE $_ LOGIN") foreach @roles;

# Each role in turn is the greedy one, since who is looked at first must not
# matter; then all but one are.
foreach my $greedy (map({ [$_] } @roles), [ @roles[ 0 .. 4 ] ])
{
	my $name = join(', ', @$greedy);

	$node->safe_psql(
		'postgres', qq{
		SELECT taskshed.add_task('pg_catalog.now', every => '1 us', task_id => 'greedy ' || n, owner => r)
		FROM unnest('{$name}'::name[]) r, generate_series(1, 3) n});
	await(
		$node, qq{
		SELECT count(*) = 3 * cardinality('{$name}'::name[]) FROM taskshed.tasks WHERE run_count > 10},
		"$name have their share");

	$node->safe_psql('postgres',
		qq{SELECT taskshed.add_task('note', kwargs => '{"what": "$name"}', owner => '$_')}
	) foreach @roles;
	await(
		$node,
		"SELECT count(*) = @{[scalar @roles]} FROM ledger WHERE what = '$name'",
		"beside $name all others get theirs");
	$node->safe_psql('postgres',
		"SELECT taskshed.remove_all_tasks(owner => r) FROM unnest('{$name}'::name[]) r"
	);
}

is( $node->safe_psql(
		'postgres',
		'SELECT what, count(*) FROM ledger GROUP BY 1 HAVING count(*) <> 6'),
	'',
	'each task has run once');

# A role that may not connect: the status says so, as long as it matters.
$node->safe_psql(
	'postgres', q{
	CREATE ROLE outsider LOGIN;
	SELECT taskshed.add_task('note', kwargs => '{"what": "kept out"}', owner => 'outsider', task_id => 'kept out', paused => true);
	REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
	GRANT CONNECT ON DATABASE postgres TO role_2;
	SELECT taskshed.resume_task('kept out', 'outsider')}
);
await(
	$node,
	q{SELECT message = 'role "outsider" is not permitted to connect to the database' FROM taskshed.status},
	'the status tells of the role');
$node->safe_psql('postgres',
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "let in"}', owner => 'role_2')}
);
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'let in'},
	'another role is not in its way');
like(
	$node->safe_psql('postgres', 'SELECT message FROM taskshed.status'),
	qr/^role "outsider"/,
	'which changes nothing for the first');
$node->safe_psql('postgres',
	q{SELECT taskshed.remove_task('kept out', 'outsider')});
await(
	$node,
	q{SELECT message IS NULL FROM taskshed.status},
	'when nothing waits for it the message goes');

$node->stop;
done_testing();
