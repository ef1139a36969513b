
# A subscriber of FOR ALL TABLES neither runs the publisher's tasks nor loses its
# own: rows of the initial copy and of later changes are dropped.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'replicated', conf => q{
wal_level = logical
max_wal_senders = 10
max_replication_slots = 10
});
my $super = $node->safe_psql('postgres', 'SELECT current_user');

foreach my $database ('publisher', 'subscriber')
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	taskshed_database($node, $database);
	$node->safe_psql($database, q{CREATE TABLE other (n int PRIMARY KEY)});
}

sub add
{
	my ($database, $what, $run_at) = @_;

	$node->safe_psql(
		$database, qq{
		SELECT taskshed.add_task('public.note', $run_at, '{"what": "$what"}', task_id => '$what', every => '1 day')}
	);
	return;
}

sub tasks
{
	my ($database) = @_;

	return $node->safe_psql($database,
		q{SELECT string_agg(task_id, ' ' ORDER BY task_id) FROM taskshed.tasks}
	);
}

# All that the publisher has done has come, and what is no task of it is there.
sub caught_up
{
	my $n = shift;

	$node->safe_psql('publisher', "INSERT INTO other VALUES ($n)");
	return await(
		$node,
		"SELECT EXISTS (SELECT FROM other WHERE n = $n)",
		"change $n has come", 'subscriber');
}

add('publisher',  'theirs', q{now() + interval '1 day'});
add('subscriber', 'ours',   q{now() + interval '1 day'});
$node->safe_psql(
	'publisher', q{
	SELECT taskshed.add_callback('say', 'public.note');
	CREATE PUBLICATION everything FOR ALL TABLES;
	SELECT pg_create_logical_replication_slot('everything', 'pgoutput')});
my $publisher = $node->connstr('publisher') =~ s/'//gr;
$node->safe_psql(
	'subscriber', qq{
	CREATE SUBSCRIPTION everything CONNECTION '$publisher user=$super' PUBLICATION everything
		WITH (create_slot = false, slot_name = 'everything')});
await(
	$node,
	q{SELECT count(*) > 3 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel},
	'the initial copy is done',
	'subscriber');
caught_up(1);
is(tasks('subscriber'), 'ours', 'tasks have not come with the initial copy');
is( $node->safe_psql('subscriber', 'SELECT count(*) FROM taskshed.callbacks'),
	'0',
	'nor have aliases');

# Scheduled, run, moved and removed there
add('publisher', 'later', 'now()');
await(
	$node,
	q{SELECT run_count = 1 FROM taskshed.tasks WHERE task_id = 'later'},
	'a task has run there', 'publisher');
caught_up(2);
is(tasks('subscriber'), 'ours', 'nor have they with changes');
is($node->safe_psql('subscriber', 'SELECT count(*) FROM taskshed.runs'),
	'0', 'nor has the history');
$node->safe_psql(
	'publisher', q{
	SELECT taskshed.pause_task('theirs');
	SELECT taskshed.remove_all_tasks()});
# which also shows that the subscriber's row there is left alone
$node->safe_psql('publisher', q{DELETE FROM taskshed.home});
caught_up(3);
is(tasks('subscriber'), 'ours', 'what is removed there is not removed here');

# Our own goes on.
$node->safe_psql('subscriber', q{SELECT taskshed.run_tasks(ARRAY['ours'])});
await($node, q{SELECT EXISTS (SELECT FROM ledger WHERE what = 'ours')},
	'it runs', 'subscriber');
is( $node->safe_psql(
		'subscriber',
		q{SELECT string_agg(DISTINCT what, ' ' ORDER BY what) FROM ledger}),
	'later ours',
	'and the ledger, a table like any other, has what was done in both');
$node->safe_psql('subscriber', 'DROP SUBSCRIPTION everything');

$node->stop;
done_testing();
