
# Many tasks that are due at once: 20,000 of one role drain through several
# workers, each exactly once; how fast is printed.
#
# Quick: promise 2

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('drain', conf => "taskshed.enabled = off\n");
my $n    = 20000;

$node->safe_psql('postgres', 'CREATE ROLE app LOGIN');
$node->safe_psql(
	'postgres', qq{
SET ROLE app;
SELECT count(taskshed.add_task('note', kwargs => jsonb_build_object('what', 'one ' || i)))
FROM generate_series(1, $n) AS i});
await($node, "SELECT due = $n FROM taskshed.status",
	'the status counts them');
is( $node->safe_psql(
		'postgres',
		q{SELECT state, oldest_due = (SELECT min(run_at) FROM taskshed.tasks), taskshed.next_wakeup() = oldest_due
		FROM taskshed.status}),
	'disabled|t|t',
	'the status knows the first of them');

# Checks the effects of so many, and prints how long they took.
sub drained
{
	my ($what, $count, $how) = @_;

	await_no_task($node, '%');
	is( $node->safe_psql(
			'postgres', qq{
			SELECT count(*), count(DISTINCT what), min(who), max(who) FROM ledger WHERE what LIKE '$what %'}
		),
		"$count|$count|app/app|app/app",
		"$how: each ran exactly once");
	diag(
		$node->safe_psql(
			'postgres', qq{
			SELECT format('%s, %s tasks in %s s: %s a second, %s workers', '$how', count(*),
				round(extract(epoch FROM max(started) - min(started)), 2),
				round(count(*) / extract(epoch FROM max(started) - min(started))), count(DISTINCT pid))
			FROM ledger WHERE what LIKE '$what %'}));
	return;
}

set_and_reload($node, 'taskshed.enabled' => 'on');
drained('one', $n, 'one role');
cmp_ok($node->safe_psql('postgres', 'SELECT count(DISTINCT pid) FROM ledger'),
	'>', 1, 'more than one worker was at it');
is( $node->safe_psql(
		'postgres',
		'SELECT due, oldest_due IS NULL, runs_ok, runs_failed FROM taskshed.status'
	),
	"0|t|$n|0",
	'the status says so');

# Added while they run, from several sessions.
my @sessions = map { session($node) } (1 .. 3);
foreach my $i (0 .. 2)
{
	$sessions[$i]->send(
		qq{SET ROLE app;
	DO \$\$ BEGIN FOR i IN 1 .. 1000 LOOP
		PERFORM taskshed.add_task('note', kwargs => jsonb_build_object('what', format('live %s %s', $i, i)));
		COMMIT;
	END LOOP; END \$\$});
}
foreach my $session (@sessions)
{
	is($session->result, '', 'a session has added its tasks');
	$session->quit;
}
drained('live', 3000, 'while they are added');

$node->stop;
done_testing();
