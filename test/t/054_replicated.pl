
# A subscriber of FOR ALL TABLES neither runs the publisher's tasks nor loses its
# own: rows of the initial copy and of later changes are dropped, and what TRUNCATE
# would remove is put back.

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
$node->safe_psql('publisher', q{DELETE FROM _taskshed.home});
caught_up(3);
is(tasks('subscriber'), 'ours', 'what is removed there is not removed here');

# TRUNCATE there does not empty the tables here, in whatever form values are stored.
$node->safe_psql(
	'subscriber', q{
	SELECT taskshed.add_callback('mine', 'public.note');
	SELECT taskshed.add_task('public.note', '2100-01-01', jsonb_build_object('what', (SELECT string_agg(random()::text, '') FROM generate_series(1, 10000))), task_id => 'wide');
	SELECT taskshed.add_task('public.note', kwargs => '{"what": "after"}', task_id => 'after', after => '{wide}')}
);
add('subscriber', 'ran', 'now()');
await(
	$node,
	q{SELECT run_count = 1 FROM taskshed.tasks WHERE task_id = 'ran'},
	'a task has run here', 'subscriber');
my $contents = q{
	SELECT md5(string_agg(t::text, ' ' ORDER BY id)) FROM _taskshed.task t UNION ALL
	SELECT md5(string_agg(a::text, ' ' ORDER BY id)) FROM _taskshed.alarm a UNION ALL
	SELECT string_agg(e::text, ' ' ORDER BY child, parent) FROM _taskshed.edge e UNION ALL
	SELECT string_agg(c::text, ' ' ORDER BY name) FROM _taskshed.callback c UNION ALL
	SELECT string_agg(h::text, ' ') FROM _taskshed.home h UNION ALL
	SELECT string_agg(r::text, ' ' ORDER BY finished_at, run_id) FROM taskshed.runs r};
my $before = $node->safe_psql('subscriber', $contents);
add('publisher', 'again', q{now() + interval '1 day'});
$node->safe_psql('publisher',
	'TRUNCATE _taskshed.task, _taskshed.alarm, other');
caught_up(4);
is($node->safe_psql('subscriber', 'SELECT count(*) FROM other'),
	'1', 'TRUNCATE is replicated');
is($node->safe_psql('subscriber', $contents),
	$before, 'and not that of our tables');
$node->safe_psql(
	'publisher',
	'TRUNCATE ' . join ', ',
	map { "_taskshed.$_" } qw(task alarm edge callback home history),
	map { "run_$_" } 0 .. 7);
$node->safe_psql('publisher',
	'BEGIN; TRUNCATE _taskshed.task; TRUNCATE _taskshed.task; TRUNCATE _taskshed.alarm; COMMIT'
);
caught_up(5);
is($node->safe_psql('subscriber', $contents),
	$before, 'nor that of all of them, nor twice in a transaction');
is( $node->safe_psql(
		'subscriber', q{
		SET enable_seqscan = off;
		SELECT count(*) FROM _taskshed.task WHERE owner = current_user::regrole AND task_id IN ('ours', 'wide', 'ran')}
	),
	'3',
	'the indexes are complete');
$node->safe_psql('subscriber',
	q{BEGIN; TRUNCATE _taskshed.callback; ROLLBACK; TRUNCATE _taskshed.callback}
);
is( $node->safe_psql('subscriber', 'SELECT count(*) FROM _taskshed.callback'),
	'0',
	'by hand they can be truncated');

# Our own goes on.
$node->safe_psql('subscriber', q{SELECT taskshed.run_tasks(ARRAY['ours'])});
await($node, q{SELECT EXISTS (SELECT FROM ledger WHERE what = 'ours')},
	'it runs', 'subscriber');
is( $node->safe_psql(
		'subscriber',
		q{SELECT string_agg(DISTINCT what, ' ' ORDER BY what) FROM ledger}),
	'later ours ran',
	'and the ledger, a table like any other, has what was done in both');
$node->safe_psql('subscriber', 'DROP SUBSCRIPTION everything');

# A subscriber without the extension lacks the tables, and the server says so.
$node->safe_psql('postgres', 'CREATE DATABASE bare');
$node->safe_psql('bare',
	'CREATE TABLE other (n int PRIMARY KEY); CREATE TABLE ledger (n int)');
$node->safe_psql('publisher',
	q{SELECT pg_create_logical_replication_slot('bare', 'pgoutput')});
my ($rc, $out, $err) = $node->psql(
	'bare', qq{
	CREATE SUBSCRIPTION bare CONNECTION '$publisher user=$super' PUBLICATION everything
		WITH (create_slot = false, slot_name = 'bare')});
like(
	$err,
	qr{(relation|schema) "_taskshed\b.*" does not exist},
	'a subscriber without taskshed is told');
$node->safe_psql('publisher', q{SELECT pg_drop_replication_slot('bare')});

$node->stop;
done_testing();
