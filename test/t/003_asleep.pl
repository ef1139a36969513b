
# No polling: while no task is due, taskshed's processes sleep; a task that is
# added for now is started at once all the same.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

plan skip_all => 'this system does not tell of context switches'
  unless -r "/proc/$$/status";

my $node = taskshed_node('asleep');

$node->safe_psql('postgres', 'CREATE ROLE app LOGIN');
$node->safe_psql(
	'postgres', q{
SET ROLE app;
SELECT count(taskshed.add_task('note', now() + interval '1 day' + random() * interval '1 h', '{"what": "tomorrow"}'))
FROM generate_series(1, 10000)});

# Our processes.
sub ours
{
	return pids_of($node, "backend_type LIKE 'taskshed%'");
}

# Until they sleep: the scheduler has read all, and nothing moves any more.
await(
	$node,
	q{SELECT next_wakeup > now() + interval '1 h' FROM taskshed.status},
	'the scheduler waits for tomorrow');
my @before = ours();
my $before = switches_of(@before);
my $calm   = 0;
for (my $i = 0; $i < 100 && $calm < 5; $i++)
{
	my @now = ours();
	my $now = switches_of(@now);

	$calm   = $now == $before ? $calm + 1 : 0;
	@before = @now;
	$before = $now;
}
is($calm,           5, 'all are asleep');
is(scalar(@before), 2, 'they are the launcher and the scheduler');

# This minute is what the test is about.
$node->safe_psql('postgres', 'SELECT pg_sleep(60)');
my @after = ours();
my $woken = switches_of(@after) - $before;
is_deeply(\@after, \@before, 'they are the same processes');
diag(
	"asleep for 60 s with 10,000 tasks a day ahead: $woken context switches");
cmp_ok($woken, '<', 60, 'nobody polls');

# Each of these is started without waiting for a tick: with one of a minute,
# not one in three would be.
foreach my $i (1 .. 3)
{
	$node->safe_psql('postgres',
		qq{SET ROLE app; SELECT taskshed.add_task('note', t, jsonb_build_object('what', 'now $i', 'planned', t)) FROM clock_timestamp() AS t}
	);
	await($node, "SELECT count(*) = 1 FROM ledger WHERE what = 'now $i'",
		'it has run');
	diag(
		"added for now, asleep before, lag $i: "
		  . $node->safe_psql(
			'postgres',
			"SELECT round(1000 * extract(epoch FROM started - planned), 1) || ' ms' FROM ledger WHERE what = 'now $i'"
		  ));
}
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM ledger WHERE started > planned + interval '20 s'}
	),
	'0',
	'a task for now does not wait for a tick');
is($node->safe_psql('postgres', 'SELECT count(*) FROM taskshed.tasks'),
	'10000', 'those of tomorrow have not run');

$node->stop;
done_testing();
